"""What ``lrsearch dashboard`` puts into a study: figures, the answer as a note, pictures."""

from __future__ import annotations

import io
import json
import threading
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import optuna
from optuna.artifacts.exceptions import ArtifactNotFound

from lrsearch.attributes import CONFIRM_ATTR
from lrsearch.errors import LrsearchError
from lrsearch.report import words
from lrsearch.report.answer import sentences
from lrsearch.report.answer_html import effect
from lrsearch.report.command import typed
from lrsearch.report.confirmed import Confirmed
from lrsearch.report.confirmed_study import confirmed_of
from lrsearch.report.confirmed_words import sentence
from lrsearch.report.importance_shown import importance_sentences
from lrsearch.report.learning_curves import thinned_curves
from lrsearch.report.raised import RAISE
from lrsearch.report.report import Report, make_report
from lrsearch.report.svg import trial_picture
from lrsearch.report.tables import StudyTable, TrialRow, load
from lrsearch.storage.schema import SYSTEM_ATTRIBUTES, upsert

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from lrsearch.storage.engine import Storage

FIGURES = {
    "scatter": "lr-vs-validation-loss",
    "curves": "best-of-each-family",
    "importance": "what-mattered",
    "within": "what-mattered-within-families",
    "stops": "what-was-stopped",
}
ROOM = 300  # pixels of a plot's height that are left to its rows
MOST_MARKS = 1500
_IDS = uuid.UUID("6b1f9c3e-3f1b-4c39-9d0b-7a0c5f1f2a11")


def prepare(study: optuna.Study, storage: Storage) -> StudyTable:
    """Put the note, the figures and the curves' places into a study; again replaces them.

    Args:
        study: A study of ours, at any stage.
        storage: Its database.

    Returns:
        The study as it was read for that.
    """
    from optuna_dashboard import save_note, save_plotly_graph_object

    if CONFIRM_ATTR in study.user_attrs:
        table = load(study)
        found = confirmed_of(table, study.user_attrs[CONFIRM_ATTR])
        save_note(study, confirm_note(found, study.user_attrs[CONFIRM_ATTR]))
        place_pictures(table, storage)
        return table
    report = make_report(study)
    save_note(study, note(report))
    for name, title in FIGURES.items():
        if name in report.figures:
            fitted = _fitted(name, light(report.figures[name][0]))
            save_plotly_graph_object(study, fitted, graph_object_id=title)
    place_pictures(report.table, storage)
    return report.table


def _fitted(name: str, figure: Figure) -> Figure:
    """A figure as it fits into the dashboard, which gives a plot so much height."""
    title = FIGURES[name].removeprefix("what-mattered-")  # to end before the plot's buttons
    figure.update_layout(
        title={"text": title.replace("-", " "), "x": 0, "y": 0.97, "yanchor": "top"},
        height=440,
        margin_t=76,
    )
    if name == "scatter":
        figure.update_xaxes(dtick=1)
    if name == "within":
        size = max(7.0, min(12.0, ROOM / -figure.layout.yaxis.range[0] - 2))
        figure.update_yaxes(tickfont_size=size)
        figure.update_annotations(font_size=size, yshift=0)
    if (figure.layout.legend.y or 0) < 0:  # no room for a legend below
        figure.update_layout(legend={"orientation": "v", "x": 1.02, "y": 1, "font": {"size": 10}})
    return figure


def light(figure: Figure) -> Figure:
    """The figure with at most 1,500 marks, filled ones first: it is stored in small pieces."""
    import plotly.graph_objects as go

    copy = go.Figure(figure)
    copy.update_layout(template=go.layout.Template())
    total = sum(len(t.x) for t in copy.data if t.type == "scatter" and t.x is not None)
    if total <= MOST_MARKS:
        return copy
    for trace in copy.data:
        if trace.type == "scatter" and trace.mode == "markers" and trace.x is not None:
            hollow = str(trace.marker.symbol).endswith("-open") and trace.text is not None
            step = -(-total // MOST_MARKS) if hollow else 1
            for key in ("x", "y", "text"):
                value = getattr(trace, key)
                if value is not None and not isinstance(value, str):
                    trace[key] = list(value)[::step]
    return copy


def note(report: Report) -> str:
    """The answer as the dashboard's Markdown note."""
    table = report.table
    lines = sentences(table, report.found, report.confirmed)
    parts = [f"## {words.markdown(lines[0])}", *map(words.markdown, lines[1:])]
    if report.found is not None and report.found.baselines:
        rows = ["| against | validation loss | the best is |", "|---|---:|---:|"]
        for recipe in report.found.baselines:
            name = words.markdown(str(recipe.baseline))
            less = effect(report.found.best, recipe) or "–"
            rows.append(f"| {name} | {words.loss(recipe.value)} | {less} |")
        parts.append("\n".join(rows))
    parts += map(words.markdown, importance_sentences(report.mattered))
    counts = report.stopped.counts
    saved = report.stopped.saved
    parts.append(
        f"{words.count(counts['complete'], 'trial')} trained to the end, "
        f"{counts['pruned']:,} pruned, {counts['diverged']:,} diverged"
        + (f": {words.percent(saved)} of epochs saved." if saved > 0 else ".")
    )
    page = words.code(typed("report", table.name, table.storage_url))
    parts.append(f"Everything on one page: {page}")
    return "\n\n".join(parts)


def confirm_note(found: Confirmed | None, plan: Mapping[str, Any]) -> str:
    """What a confirmation says, as Markdown."""
    of = words.code(plan["of"])
    if not plan["arms"]:
        return (
            f"## Finalists of {of}\n\nTrained at {RAISE:g} times their rates, on fresh seeds: "
            "what bears that best is in robust.yaml, unless the best recipe beats it."
        )
    head = f"## Confirmation of {of}"
    if found is None:
        return f"{head}\n\nNo run of the best schedule has come to its end yet."
    rows = ["| schedule | seeds | median validation loss | p |", "|---|---:|---:|---:|"]
    for arm in found.arms:
        row = found.against(arm.key)
        p = "" if row is None else words.p_value(row.p_corrected)
        rows.append(
            f"| {words.markdown(arm.name)} | {arm.val.n} | {words.loss(arm.val.median)} | {p} |"
        )
    return "\n\n".join([head, words.markdown(sentence(found)), "\n".join(rows)])


# curves of trials


def picture_id(trial_id: int) -> str:
    """The artifact id of a trial's curve: always the same one."""
    return str(uuid.uuid5(_IDS, str(trial_id)))


def place_pictures(table: StudyTable, storage: Storage) -> None:
    """Tell the dashboard of every trial's curve, in one transaction."""
    rows = []
    for trial in table.trials:
        if not trial.schedule or any(k.startswith("artifacts:") for k in trial.attrs):
            continue
        artifact = picture_id(trial.trial_id)
        meta = {
            "artifact_id": artifact,
            "filename": f"trial-{trial.number}-lr-curve.svg",
            "mimetype": "image/svg+xml",
            "encoding": None,
        }
        rows.append(
            {
                "trial_id": trial.trial_id,
                "key": f"artifacts:{artifact}",
                "value_json": json.dumps(json.dumps(meta)),
            }
        )
    storage.transact(lambda c: upsert(c, SYSTEM_ATTRIBUTES, ("trial_id", "key"), rows))


class Pictures:
    """An artifact store that holds nothing: it draws a trial's curve when it is asked for.

    Args:
        storage: The database.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._trials: dict[str, tuple[StudyTable, TrialRow]] = {}
        self._lock = threading.Lock()

    def add(self, table: StudyTable) -> None:
        """Know the trials of a study."""
        with self._lock:
            for trial in table.trials:
                self._trials[picture_id(trial.trial_id)] = (table, trial)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The picture of one trial; of one that had not ended as it is now."""
        table, trial = self._trials.get(artifact_id, (None, None))
        if table is not None and trial is not None and trial.finished is None:
            study = optuna.load_study(study_name=table.name, storage=self._storage)
            table = load(study)
            trial = next((t for t in table.trials if t.trial_id == trial.trial_id), None)
        if table is None or trial is None:
            raise ArtifactNotFound(artifact_id)
        (curve,) = thinned_curves(table, [trial])
        return io.BytesIO(trial_picture(curve).encode())

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Nothing can be uploaded here."""
        raise LrsearchError("this dashboard keeps no files")

    def remove(self, artifact_id: str) -> None:
        """Nothing is kept, so nothing is removed."""
