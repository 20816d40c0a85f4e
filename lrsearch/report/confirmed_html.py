"""The confirmation as an HTML table."""

from __future__ import annotations

from lrsearch.report.confirmed import Arm, Confirmed
from lrsearch.report.confirmed_words import arm_cells, seeds_of
from lrsearch.report.html import escape
from lrsearch.report.svg import mark


def confirmed_table(found: Confirmed) -> str:
    """Every arm on fresh seeds, and the paired comparison with the winner."""
    head = ["schedule", "seeds", "median", "validation loss"]
    head += [f"test {found.metric_name}"] if found.tested else []
    head += ["the winner is lower by"] + ([] if found.too_few else ["95% interval", "p"])
    head += ["lower on"]
    body = "".join(_arm_row(found, arm) for arm in found.arms)
    columns = "".join(
        f'<th scope="col"{"" if i == 0 else " class=num"}>{escape(h)}</th>'
        for i, h in enumerate(head)
    )
    note = found.how
    if found.finished < found.planned:
        note += f" {found.finished} of {found.planned} runs are finished."
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="on fresh seeds">'
        f'<table class="plain"><thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table></div><p class=note>{escape(note)}</p>"
    )


def _arm_row(found: Confirmed, arm: Arm) -> str:
    row = found.against(arm.key)
    on = ""
    if row is not None:
        same = row.n - row.lower - row.higher
        on = f"{row.lower} of {row.n}" + (f" ({same} equal)" if same else "")
    cells = [seeds_of(arm), *arm_cells(found, arm), on]
    kind = ' class="ours"' if row is None else ""
    dead = f"{len(arm.untrained)} of {arm.val.n} seeds did not train"
    note = f"<small>{dead}</small>" if arm.untrained else ""
    return (
        f'<tr{kind}><th scope="row">{mark(str(arm.schedule.get("family", "")))}'
        f"{escape(arm.name)}{note}</th>"
        + "".join(f'<td class="num">{escape(c)}</td>' for c in cells)
        + "</tr>"
    )
