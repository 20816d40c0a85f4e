"""The answer in HTML: the first screen of the report, and how sure it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrsearch.report import words
from lrsearch.report.answer import sentences, trial_shown, trial_to_use
from lrsearch.report.command import confirming
from lrsearch.report.confirmed import Arm, Confirmed
from lrsearch.report.confirmed_words import arm_cells, findings, seeds_of
from lrsearch.report.html import breakable, escape, to_html
from lrsearch.report.sections import figure_block, section, text
from lrsearch.report.svg import mark
from lrsearch.report.tables import Answer, StudyTable, TrialRow

if TYPE_CHECKING:
    from lrsearch.report.report import Report


Cells = list[tuple[str, str]]
"""Numbers, each with what it is."""


def hero(report: Report, curve: str, scatter: str) -> str:
    """The first screen: the answer, the winning curve, and all trials at a glance."""
    table, found, confirmed = report.table, report.found, report.confirmed
    lines = sentences(table, found, confirmed)
    kicker = " · ".join(filter(None, ["lrsearch", table.name, table.plan.get("task")]))
    heading = breakable(to_html(lines[0]))
    head = f'<p class="kicker">{escape(kicker)}</p><h1>{heading}</h1>'
    lead = f'<p class="lead">{to_html(lines[1])}</p>' if len(lines) > 1 else ""
    caption = ""
    if found is not None:
        drawn = trial_shown(table, found, confirmed)
        recipe = all(found.strongest is not row for row in (None, found.best, drawn))
        of = "the best of the search"
        if drawn is not found.best:
            _, file = trial_to_use(found.best.number, found.chosen.number, confirmed)
            of = "which bore higher rates best" if drawn.baseline is None else "a usual recipe"
            if file == "confirmed.yaml":
                of = "the best of those on fresh seeds"
        caption = f"Learning rate of trial {drawn.number}, {of}" + (
            "; dashed, the best usual recipe" if recipe else ""
        )
    rail = ", marks on the rail **diverged**" if report.stopped.counts["diverged"] else ""
    return (
        f'<header class="hero"><div class="answer">{head}{lead}</div>'
        f"{figure_block(curve, caption)}</header>{_key_figures(report)}"
        + figure_block(
            scatter,
            "Every trial by its peak learning rate. **Filled** marks were trained to the end, "
            f"**hollow** ones were stopped early and stand at the loss they had then{rail}. "
            "A ring: the best; squares: the baselines.",
        )
    )


def _key_figures(report: Report) -> str:
    """A row of the few numbers that people quote; of fresh seeds, where there are some."""
    table, found, confirmed = report.table, report.found, report.confirmed
    cells: Cells = []
    if found is not None and confirmed is not None and confirmed.is_of(found.best.number):
        cells = _on_fresh_seeds(table, found, confirmed)
    elif found is not None:
        cells = _in_the_search(table, found)
    stopped = report.stopped
    ended = stopped.finished + stopped.counts["failed"]
    cells.append((f"{ended:,}", "trials" if ended != 1 else "trial"))
    if stopped.saved > 0:
        cells.append((words.percent(stopped.saved), "of epochs saved"))
    return (
        '<dl class="keys">'
        + "".join(f"<div><dt>{escape(b)}</dt><dd>{escape(a)}</dd></div>" for a, b in cells)
        + "</dl>"
    )


def _on_fresh_seeds(table: StudyTable, found: Answer, confirmed: Confirmed) -> Cells:
    held = confirmed.held
    seeds = words.count(held.val.n, "fresh seed")
    seeds += f" (+{len(held.lost)} lost)" if held.lost else ""
    other = trial_shown(table, found, confirmed).number != held.trial
    whose = "the winner's " if other else ""
    cells = [(words.loss(held.val.median), f"{whose}validation loss, median of {seeds}")]
    if held.test is not None:
        cells.append(
            (words.metric_mean(held.test, table.metric_name), f"test {table.metric_name}")
        )
    strongest, gain = confirmed.decision.strongest, confirmed.decision.gain
    if strongest is not None and gain is not None:
        name = words.baselines([str(strongest.baseline)])
        by = words.change if gain.relative else words.difference
        cells.append((by(-gain.difference), f"against {name}, {seeds}"))
    return cells


def _in_the_search(table: StudyTable, found: Answer) -> Cells:
    trial = found.chosen
    cells = [(words.loss(trial.value), "validation loss")]
    if trial.metric is not None:
        value = words.metric(trial.metric, table.metric_name)
        cells.append((value, f"validation {table.metric_name}"))
    if found.strongest is not None and not trial.baseline:
        against = f"against {words.baselines([str(found.strongest.baseline)])}"
        cells.append((effect(trial, found.strongest), against))
    return cells


def sure(report: Report) -> str:
    """Is it sure? The gain over each recipe, the near ties, and the confirmation."""
    table, found, confirmed = report.table, report.found, report.confirmed
    if found is None:
        return ""
    parts = [gains(found, trial_shown(table, found, confirmed))]
    near = len(found.close)
    if near:
        others = {t.family for t in found.close if t.family != found.best.family}
        word = f"{words.count(near, 'other trial')} came within 2% of the best"
        word += f", of {words.count(len(others) + 1, 'family', 'families')}" if others else ""
        parts.append(text(f"{word}: take the exact parameters with a grain of salt.", kind="note"))
    if confirmed is None:
        confirm = words.code(confirming(table.config, table.name, table.storage_url))
        again = (
            f"{confirm} trains the best schedules and every baseline again on fresh seeds, and "
            "looks at the test data, where the task has some, for the first time."
            if table.config
            else "This study has a training loop of its own: run the best schedule and the "
            "strongest recipe in it again, with a few other seeds, before you believe it."
        )
        parts += [text(line) for line in sentences(table, found, None)[2:]]
        parts.append(
            text(
                "The losses of a search are of one seed, and the best of many looks better than "
                f"it is. {again}"
            )
        )
    else:
        parts += [*map(text, _untold(table, found, confirmed)), confirmed_table(confirmed)]
    return section("sure", "Is it sure?", *parts)


def _untold(table: StudyTable, found: Answer, confirmed: Confirmed) -> list[str]:
    """What the confirmation says and the first screen does not."""
    said = sentences(table, found, confirmed)[2:]
    if confirmed.is_of(found.best.number):
        return said
    return [*said, *findings(confirmed, found.best.number)]


def effect(trial: TrialRow, recipe: TrialRow) -> str:
    """A trial's loss against that of a usual recipe; "" where one has none."""
    if trial.value is None or recipe.value is None:
        return ""
    return words.against(trial.value, recipe.value)


def gains(found: Answer, answer: TrialRow) -> str:
    """The best against each usual recipe, as bars from 0, or from the best if that is below.

    Args:
        found: The best, and the recipes.
        answer: What to train with, which has a bar, too.
    """
    if not found.baselines:
        return text("No usual recipe was run in this study, so there is nothing to compare with.")
    rows = []
    best = found.best.value or 0.0
    highest = max((t.value for t in found.baselines if t.value is not None), default=best)
    zero = min(0.0, best)
    top = (max(highest, best) - zero) or 1.0
    listed: list[tuple[str, float | None, str, bool]] = [("this search's best", best, "", True)]
    if answer.number != found.best.number and not answer.baseline and answer.value is not None:
        listed.append(("to train with", answer.value, words.against(best, answer.value), True))
    listed += [
        (str(t.baseline), t.value, effect(found.best, t), False)
        for t in found.baselines
        if t is not found.best
    ]
    for name, value, by, ours in listed:
        width = 0.0 if value is None else 100 * (value - zero) / top
        shown = words.loss(value) if value is not None else "did not finish"
        rows.append(
            f'<tr class="{"ours" if ours else ""}"><th scope="row">{escape(name)}</th>'
            f'<td class="bar"><i style="width:{width:.1f}%"></i></td>'
            f'<td class="num">{shown}</td><td class="num">{by}</td></tr>'
        )
    return (
        '<table class="bars"><thead><tr><th scope="col">schedule</th><td class="bar"></td>'
        '<th scope="col" class="num">validation loss</th><th scope="col" class="num">the best is'
        f"</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


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
