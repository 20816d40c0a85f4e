"""What a person sees in a notebook while a study runs: one output that is redrawn in place."""

from __future__ import annotations

import html
import sys
from importlib import import_module
from typing import Any

from lrsearch.report.tables import TrialRow
from lrsearch.search.progress import Progress, described

MAX_RUNNING_ROWS = 8


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel; imports nothing to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookDisplay:
    """A progress bar, the best so far, the running trials, and notes, as HTML.

    Args:
        show: Shows an object and gives a handle with ``update``; IPython's ``display`` by default.
    """

    def __init__(self, show: Any = None) -> None:
        self._show = show or import_module("IPython.display").display
        self._handle: Any = None
        self._notes: list[str] = []
        self._progress: Progress | None = None

    def update(self, progress: Progress) -> None:
        """Redraw."""
        self._progress = progress
        self._draw()

    def note(self, line: str) -> None:
        """Keep one line under the progress."""
        self._notes.append(line)
        self._draw()

    def close(self) -> None:
        """What is drawn stays."""

    def _draw(self) -> None:
        shown = Html(page(self._progress, self._notes))
        if self._handle is None:
            self._handle = self._show(shown, display_id=True)
        else:
            self._handle.update(shown)


class Html:
    """HTML that a notebook shows."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_html_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return "<lrsearch progress>"


def page(progress: Progress | None, notes: list[str]) -> str:
    """The whole output."""
    parts = [f"<small>{html.escape(line)}</small><br>" for line in notes]
    if progress is not None:
        parts.insert(0, _bar(progress))
        if progress.best is not None:
            parts.insert(1, f"best {_row(progress.best)}<br>")
        running = progress.running
        parts += [f"<small>{_row(row)}</small><br>" for row in running[:MAX_RUNNING_ROWS]]
        if len(running) > MAX_RUNNING_ROWS:
            parts.append(f"<small>and {len(running) - MAX_RUNNING_ROWS} more</small>")
    return "".join(parts)


def _bar(progress: Progress) -> str:
    ended = "".join(f"· {end} " for end in progress.ends) or " "
    return (
        f'<progress max="{max(1, progress.target)}" value="{progress.finished}" '
        f'style="width:20em"></progress> {progress.finished}/{progress.target} trials '
        f"{ended}· {progress.epochs_run:,} epochs<br>"
    )


def _row(row: TrialRow) -> str:
    what = f"{row.baseline} baseline" if row.baseline else described(row)
    loss = "" if row.loss is None else f" val loss <b>{row.loss:#.4g}</b>"
    return (
        f"#{row.number} {html.escape(row.family)} lr {row.lr:.3g} {html.escape(what)} "
        f"epoch {row.epochs}{loss}"
    )
