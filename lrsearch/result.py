"""A study and what it found, for programs and notebooks."""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lrsearch.errors import LrsearchError
from lrsearch.export import answer_trial, best_trial, export_text
from lrsearch.files import write_text
from lrsearch.report import answer, svg, words
from lrsearch.report.html import in_notebook, to_html
from lrsearch.report.learning_curves import best_curves
from lrsearch.schedules import Schedule
from lrsearch.search.study import folder_of

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial
    from plotly.graph_objects import Figure

    from lrsearch.report.confirmed import Confirmed
    from lrsearch.report.report import Report
    from lrsearch.report.tables import TrialRow


@dataclass(frozen=True, repr=False)
class Result:
    """A study and what it found; a notebook shows it as a table, and its figures as plots.

    Args:
        study: The Optuna study.
        storage: Where it is kept.
        files: What the run has written.

    Example:
        >>> result = lrsearch.report("digits")  # doctest: +SKIP
        >>> result.schedule.lr, result.value  # doctest: +SKIP
        (0.21, 0.412)
    """

    study: optuna.Study
    storage: BaseStorage
    files: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.study_name

    @property
    def schedule(self) -> Schedule:
        """What to train with; ``.build(optimizer, steps_per_epoch=...)`` makes torch's scheduler.

        The best of the search; where finalists were trained at higher rates, the one that bore
        them best; and where :func:`lrsearch.confirm` found that another alone holds on fresh
        seeds, that one.

        Raises:
            LrsearchError: No trial has been trained to the end yet.
        """
        return Schedule.from_dict(self._answer.user_attrs["schedule"])

    @property
    def best(self) -> Schedule:
        """The schedule of the lowest loss in the search, as in ``best.yaml``.

        Raises:
            LrsearchError: No trial has been trained to the end yet.
        """
        return Schedule.from_dict(best_trial(self.study).user_attrs["schedule"])

    @property
    def robust(self) -> Schedule:
        """The schedule of the search that is the safest to train with, as in ``robust.yaml``.

        Of the finalists the one that bore 1.7 times its rates best, or the best baseline where
        that is better on fresh seeds; where that was not tried, one that only luck may have put
        behind the best, at a lower peak; else the best.

        Raises:
            LrsearchError: No trial has been trained to the end yet.
        """
        found = None if self.tables.found is None else self.tables.found.robust
        trial = best_trial(self.study, None if found is None else found.trial.number)
        return Schedule.from_dict(trial.user_attrs["schedule"])

    @property
    def value(self) -> float:
        """Validation loss of :attr:`schedule` in the search.

        Raises:
            LrsearchError: No trial has been trained to the end yet.
        """
        return float(self._answer.value or 0.0)

    @cached_property
    def _answer(self) -> FrozenTrial:
        return answer_trial(self.study)

    @property
    def baselines(self) -> dict[str, float]:
        """Validation loss of each usual recipe that was trained to the end."""
        return {
            trial.baseline: trial.value
            for trial in self.trials
            if trial.baseline is not None and trial.value is not None
        }

    @property
    def trials(self) -> tuple[TrialRow, ...]:
        """Every trial as a row: ``number``, ``status``, ``family``, ``lr``, ``value``, ..."""
        return self.tables.table.trials

    @property
    def counts(self) -> dict[str, int]:
        """How many trials are complete, pruned, diverged, failed, running and waiting."""
        return {key: n for key, n in self.tables.stopped.counts.items() if n}

    @property
    def confirmed(self) -> Confirmed | None:
        """What :func:`lrsearch.confirm` found on fresh seeds; None before it was asked."""
        return self.tables.confirmed

    @property
    def importance(self) -> dict[str, float]:
        """Share of the differences between trials that each parameter explains, largest first.

        Empty where too few trials have finished to say.
        """
        overall = self.tables.mattered.overall
        return {} if overall is None else dict(overall.share)

    @property
    def figures(self) -> dict[str, Figure]:
        """plotly figures by name: ``scatter``, ``winner``, ``curves``, ``importance``, ..."""
        return {name: figure for name, (figure, _) in self.tables.figures.items()}

    @cached_property
    def tables(self) -> Report:
        """Everything that the report shows, read once; make a new result to see more trials."""
        from lrsearch.report.report import make_report

        return make_report(self.study)

    def write(
        self,
        path: str | Path | None = None,
        *,
        png: str | Path | None = None,
        csv: str | Path | None = None,
    ) -> list[Path]:
        """Write the report as one HTML page that needs no network.

        Args:
            path: The page; None for ``lrsearch-results/STUDY/report.html``.
            png: Folder for the figures as pictures (needs ``lrsearch[png]``).
            csv: Folder for the tables.

        Returns:
            All files written.

        Raises:
            LrsearchError: A file cannot be written.
        """
        from lrsearch.report.page import write_report

        return write_report(
            self.study,
            Path(path) if path is not None else folder_of(self.study) / "report.html",
            png=None if png is None else Path(png),
            csv=None if csv is None else Path(csv),
        )

    def export(
        self,
        path: str | Path | None = None,
        *,
        trial: int | None = None,
        python: bool = False,
    ) -> str:
        """:attr:`schedule`, and what was trained, as YAML (for :func:`load`) or as torch code.

        Args:
            path: Also write it there.
            trial: This trial instead.
            python: Code that needs torch alone.

        Raises:
            LrsearchError: There is no such trial, or none is complete.
        """
        name = None if path is None else Path(path).name
        text = export_text(self.study, trial=trial, python=python, name=name)
        if path is not None:
            write_text(Path(path), text)
        return text

    def _lines(self) -> list[str]:
        ended = ", ".join(f"{n} {status}" for status, n in self.counts.items())
        head = f"study {self.name}: {ended or 'no trials yet'}"
        try:
            best, chosen = best_trial(self.study), self._answer
        except LrsearchError:
            return [head]
        against = ", ".join(f"{name} {words.loss(loss)}" for name, loss in self.baselines.items())
        return [
            head,
            f"best {_described(best)}",
            *([f"train with {_described(chosen)}"] if chosen.number != best.number else []),
            *([f"usual recipes: {against}"] if against else []),
        ]

    def __repr__(self) -> str:
        return "\n  ".join(self._lines())

    def _repr_html_(self) -> str:
        tables = self.tables
        said = answer.sentences(tables.table, tables.found, tables.confirmed)
        parts = [f"<p>{to_html(line)}</p>" for line in said]
        parts.append(f"<p><small>{html.escape(self._lines()[0])}</small></p>")
        curves = best_curves(tables.table, 5)
        if curves:
            rows = []
            for curve in curves:
                trial = curve.trial
                line = svg.sparkline(curve.x, curve.lr, curve.level, trial.family)
                cells = (trial.family, f"{trial.lr:.3g}", words.loss(trial.value))
                text = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
                rows.append(f"<tr>{text}<td>{line}</td></tr>")
            head = "<tr><th>family</th><th>peak lr</th><th>val loss</th><th>rate</th></tr>"
            parts.append(f"<table>{head}{''.join(rows)}</table>")
        return in_notebook("".join(parts))


def _described(trial: FrozenTrial) -> str:
    """A trial's schedule, its rate and its loss."""
    schedule = Schedule.from_dict(trial.user_attrs["schedule"])
    loss = words.loss(trial.value)
    return f"{schedule.describe()}  lr {schedule.lr:.4g}  validation loss {loss}"
