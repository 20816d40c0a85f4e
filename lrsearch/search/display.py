"""What a person sees while a study runs: a live display, plain lines, or nothing."""

from __future__ import annotations

import contextlib
import math
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from lrsearch.divergence import DIVERGED_LOSS
from lrsearch.report import words
from lrsearch.report.tables import TrialRow
from lrsearch.search.notebook import NotebookDisplay, in_notebook
from lrsearch.search.progress import Progress, described, ended
from lrsearch.tracking import STOPPED

MAX_RUNNING_ROWS = 12
BAR, GAP = 10, 2  # columns of a trial's progress bar, and between all columns
WIDEST_BAR = 34  # of the study's; in a narrow terminal it gives way to the counts
LINE = 120  # of a log, at most
LEAST_TOLD = 8  # a description cut to less says nothing
UNSEEN = contextlib.suppress(OSError)  # the terminal is gone, or nobody reads: the study goes on


class QuietDisplay:
    """Shows nothing but that a tracker misses trials, once: no other command tells of it."""

    def __init__(self) -> None:
        self._told = False

    def update(self, progress: Progress) -> None:
        """Nothing."""

    def note(self, line: str) -> None:
        """Print a line of a tracker that is told no more."""
        if line.startswith(STOPPED) and not self._told:
            self._told = True
            with UNSEEN:
                sys.stderr.write(f"lrsearch: {line}\n")

    def close(self) -> None:
        """Nothing."""


class LineDisplay:
    """One line per finished trial, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._seen: set[int] | None = None
        self._best = math.inf  # of those seen: several may have ended since the last call

    def update(self, progress: Progress) -> None:
        """Print the trials that ended since the last call."""
        over = [row for row in progress.rows if row.status != "running"]
        if self._seen is None:  # a study that goes on: do not repeat what an earlier run printed
            self._seen = {row.number for row in over}
            if progress.best is not None and progress.best.value is not None:
                self._best = progress.best.value
            return
        for row in over:
            if row.number in self._seen:
                continue
            self._seen.add(row.number)
            loss = math.inf if row.value is None else row.value
            self._write(finished_line(row, len(self._seen), progress, loss < self._best))
            self._best = min(self._best, loss)

    def note(self, line: str) -> None:
        """Print the line."""
        self._write(line)

    def close(self) -> None:
        """Nothing to do."""

    def _write(self, line: str) -> None:
        with UNSEEN:
            self._stream.write(line + "\n")
            self._stream.flush()


def finished_line(row: TrialRow, count: int, progress: Progress, best: bool) -> str:
    """``[ 63/200] #62  completed 20/20  val loss 0.4120  best  CosineAnnealingLR  lr 0.21 ...``.

    What is longer than a line of a log has the last parameters left out; why a trial failed is
    told whole.
    """
    width = len(str(progress.target))
    how = f"{ended(row.status)} {row.epochs}/{progress.budget}"
    head = f"[{count:>{width}}/{progress.target}] #{row.number:<{width}} "
    head += f"{how:<{len('completed /') + 2 * len(str(progress.budget))}}  "
    what = f"{row.family}  lr {row.lr:.3g}"
    if row.status == "failed":
        return f"{head}{what}  {next(iter(row.stopped.splitlines()), '')}"
    result = f"val loss {words.loss(row.loss)}"
    if row.status == "diverged" and (row.loss is None or row.loss >= DIVERGED_LOSS):
        result = "loss not finite"
    head += f"{result:<16} {'best' if best else '':<4}  "
    what += "  baseline" if row.baseline == row.family else f"  {row.baseline or described(row)}"
    if len(head + what) > LINE:
        what = textwrap.shorten(what, LINE - len(head), placeholder=" …")
    return f"{head}{what}".rstrip()


class LiveDisplay:
    """Progress of the study and of each running trial, redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, markup=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._began = time.monotonic()
        self._before: int | None = None  # trials that had ended when it was first drawn

    def update(self, progress: Progress) -> None:
        """Redraw."""
        with UNSEEN:
            if self._before is None:
                self._before = progress.finished
                self._live.start()  # not before: it hides the cursor, and close() must follow
            self._live.update(self._render(progress), refresh=True)

    def note(self, line: str) -> None:
        """Print the line above the display."""
        with UNSEEN:
            self._console.print(Text(line, style="yellow"))

    def close(self) -> None:
        """Remove the display."""
        with UNSEEN:
            self._live.stop()

    def _eta(self, progress: Progress) -> str:
        done = progress.finished - (self._before or 0)
        left = progress.target - progress.finished
        if done < 3 or left <= 0:
            return ""
        seconds = (time.monotonic() - self._began) / done * left
        return f"eta {timedelta(seconds=int(seconds))}"

    def _render(self, progress: Progress) -> Group:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", justify="right")
        grid.add_column()
        parts = [f"{progress.finished}/{progress.target}"]
        for status in ("pruned", "diverged", "failed", "complete"):
            if n := progress.count(status):
                parts.append(f"{n} {status}")
        counts, eta = " · ".join(parts), self._eta(progress)
        bar = self._console.width - sum(cell_len(text) + GAP for text in ("trials", counts, eta))
        bar = min(WIDEST_BAR, max(BAR, bar))
        line = Table.grid("", "", Column(no_wrap=True), padding=(0, GAP))
        line.add_row(
            ProgressBar(total=max(1, progress.target), completed=progress.finished, width=bar),
            counts,
            eta,
        )
        grid.add_row("trials", line)
        epochs = f"{progress.epochs_run:,} of {progress.budget * len(progress.rows):,}"
        saved = f" ({progress.saved:.0%} saved by pruning)" if progress.saved > 0.005 else ""
        grid.add_row("epochs", epochs + saved)
        if best := progress.best:
            grid.add_row("best", self._best(best, progress))
        if not progress.running:
            return Group(Text(""), grid)
        return Group(Text(""), grid, Text(""), self._running(progress))

    def _best(self, best: TrialRow, progress: Progress) -> Text:
        text = Text(f"#{best.number} {best.family}  lr {best.lr:.3g}  {described(best)}  ")
        text.append(f"val loss {words.loss(best.value)}", style="bold green")
        others = [
            f"{name} {words.loss(value)}"
            for name, value in progress.baselines.items()
            if name != best.baseline
        ]
        if others:
            text.append(f"  (baselines: {', '.join(others)})", style="dim")
        return text

    def _running(self, progress: Progress) -> Table:
        """The running trials; in a narrow terminal words are cut, and numbers never."""
        rows = progress.running
        shown = rows[:MAX_RUNNING_ROWS]
        names = [f"#{row.number} {row.family}" for row in shown]
        if len(rows) > len(shown):
            names.append(f"and {len(rows) - len(shown)} more")
        told = [f"{row.baseline} baseline" if row.baseline else described(row) for row in shown]
        numbers = {
            "epoch": [f"{row.epochs}/{progress.budget}" for row in shown],
            "lr": [f"{row.lr:.3g}" for row in shown],
            "val loss": [words.loss(row.loss) for row in shown],
        }
        room = self._console.width - BAR - GAP
        room -= sum(max(map(cell_len, (head, *cells))) + GAP for head, cells in numbers.items())
        name = min(max(map(cell_len, ("running", *names))), max(1, room - GAP))
        what = min(max(map(cell_len, told), default=0), room - name - 2 * GAP)
        table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim")
        table.add_column("running", no_wrap=True, width=name)
        if what >= LEAST_TOLD:
            table.add_column("", no_wrap=True, width=what)
        table.add_column("", width=BAR)
        for head in numbers:
            table.add_column(head, justify="right", no_wrap=True)
        for i, row in enumerate(shown):
            table.add_row(
                names[i],
                *([Text(told[i])] if what >= LEAST_TOLD else []),
                ProgressBar(total=progress.budget, completed=row.epochs, width=BAR),
                *(cells[i] for cells in numbers.values()),
            )
        if len(names) > len(shown):
            table.add_row(names[-1])
        return table


Display = QuietDisplay | LineDisplay | LiveDisplay | NotebookDisplay
"""Shows progress and notes; its ``close`` leaves the terminal as it was."""


def make_display(*, quiet: bool, stream: TextIO | None = None) -> Display:
    """Live where ``stream`` (stderr by default) is a terminal, HTML in a notebook, else lines.

    A terminal that cannot move its cursor (``TERM=dumb``) gets lines, too.
    """
    if quiet:
        return QuietDisplay()
    if stream is None and in_notebook():
        return NotebookDisplay()
    stream = stream or sys.stderr
    live = stream.isatty() and Console(file=stream).is_interactive
    return LiveDisplay(stream) if live else LineDisplay(stream)


@contextlib.contextmanager
def watching(
    read: Callable[[], Progress], display: Display, at_once: list[Callable[[], None]]
) -> Iterator[None]:
    """Update ``display`` from the database beside the work inside, at a small share of its time.

    A read that takes long makes the pauses longer: the display never costs more than 2%.

    Args:
        read: Gives the state of the study.
        display: Shows it; it is closed at the end.
        at_once: Of :class:`lrsearch.search.interrupt.Interrupt`: closes it at the second signal.
    """
    if isinstance(display, QuietDisplay):
        yield
        return
    stop = threading.Event()
    failed: list[BaseException] = []

    def watch() -> None:
        pause = 0.0
        while not stop.wait(pause):
            began = time.perf_counter()
            try:
                display.update(read())
            except Exception as error:  # noqa: BLE001 - shown below; the study must not end by it
                failed.append(error)
                return
            pause = min(5.0, max(0.5, 50 * (time.perf_counter() - began)))

    def close() -> None:
        with contextlib.suppress(Exception):  # such as a write in the middle of another
            display.close()

    thread = threading.Thread(target=watch, name="lrsearch-display", daemon=True)
    at_once.append(close)
    try:
        display.update(read())
        thread.start()
        yield
        stop.set()
        thread.join()
        display.update(read())
    finally:
        stop.set()
        if thread.ident is not None:
            thread.join()
        display.close()
        at_once.remove(close)
        if failed:
            display.note(f"the display stopped: {failed[0]}")
