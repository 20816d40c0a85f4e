"""The confirmation as an HTML table."""

from __future__ import annotations

import math

from lrsearch.report import words
from lrsearch.report.confirmed import HOW, Arm, Confirmed
from lrsearch.report.html import escape
from lrsearch.report.svg import mark
from lrsearch.stats import Summary


def confirmed_table(found: Confirmed) -> str:
    """Every arm on fresh seeds, and the paired comparison with the winner."""
    test = any(arm.test_metric for arm in found.arms)
    head = ["schedule", "seeds", "validation loss"]
    head += [f"test {found.metric_name}"] if test else []
    head += ["the winner is lower by", "95% interval", "p"]
    body = "".join(_arm_row(found, arm, test) for arm in found.arms)
    columns = "".join(
        f'<th scope="col"{"" if i == 0 else " class=num"}>{escape(h)}</th>'
        for i, h in enumerate(head)
    )
    note = HOW
    if found.finished < found.planned:
        note += f" {found.finished} of {found.planned} runs are finished."
    return (
        f'<div class="wide"><table class="plain"><thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table></div><p class=note>{escape(note)}</p>"
    )


def _arm_row(found: Confirmed, arm: Arm, test: bool) -> str:
    row = found.against(arm.key)
    cells = [str(arm.val.n) + (f" (+{len(arm.lost)} lost)" if arm.lost else "")]
    cells.append(_mean(arm.val.mean, arm.val.sd))
    if test:
        metric = arm.test
        cells.append("–" if metric is None else metric_words(metric, found.metric_name))
    if row is None:
        cells += ["", "", ""]
    else:
        cells.append(words.loss(row.difference).replace("-", "−"))
        interval = row.low is not None and row.high is not None
        low, high = (words.number(v, 3).replace("-", "−") for v in (row.low, row.high))
        cells.append(f"{low} to {high}" if interval else "–")
        cells.append(words.p_value(row.p_corrected))
    kind = ' class="ours"' if row is None else ""
    return (
        f'<tr{kind}><th scope="row">{mark(str(arm.schedule.get("family", "")))}'
        f"{escape(arm.name)}</th>"
        + "".join(f'<td class="num">{escape(c)}</td>' for c in cells)
        + "</tr>"
    )


def _mean(mean: float, sd: float | None) -> str:
    if not math.isfinite(mean):
        return "–"
    return words.loss(mean) if sd is None else f"{words.loss(mean)} ± {words.number(sd, 2)}"


def metric_words(found: Summary, name: str) -> str:
    """A metric over seeds; accuracies in percent."""
    if name != "accuracy":
        mean = words.number(found.mean, 4)
        return mean if found.sd is None else f"{mean} ± {words.number(found.sd, 2)}"
    mean = f"{100 * found.mean:.1f}"
    return f"{mean}%" if found.sd is None else f"{mean} ± {100 * found.sd:.1f}%"
