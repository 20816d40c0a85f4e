"""Text and tables for a terminal; also the lists of schedule families and of tasks."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Collection, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lrsearch.errors import printable
from lrsearch.report.words import count

GAP = 2


def to_stdout() -> Console:
    """Of the terminal's width, or 140 where it is none; brackets are no markup."""
    width = None if sys.stdout.isatty() else 140
    return Console(file=sys.stdout, highlight=False, markup=False, width=width)


def print_rows(
    console: Console,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    needs: int | None = None,
) -> None:
    """Print rows as a table; in a terminal too narrow for it, each as a small list.

    Args:
        console: Where.
        heads: Of the columns; the first is what a row is called.
        rows: Cells; those missing at the end of a row are empty.
        right: Columns of numbers.
        needs: Width that the table needs; None: so that no cell is broken.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    if needs is None:
        columns = itertools.zip_longest(heads, *rows, fillvalue="")
        needs = sum(max(map(cell_len, column)) + GAP for column in columns) - GAP
    if needs <= console.width or not console.is_terminal:
        console.width = max(console.width, needs)
        table = Table(box=None, padding=(0, GAP, 0, 0), header_style="bold", pad_edge=False)
        for index, head in enumerate(heads):
            justify: Literal["right", "left"] = "right" if index in right else "left"
            table.add_column(head, justify=justify, no_wrap=index == 0, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        return
    for row in rows:
        console.print(Text(row[0], style="bold"))
        told = [(head, cell) for head, cell in zip(heads[1:], row[1:], strict=False) if cell]
        lines = _filled([f"{head} {cell}" for head, cell in told], console.width - 2)
        if lines is None:
            console.print(Padding(_listed(told), (0, 0, 0, 2)))
        else:
            console.print("\n".join(f"  {line}" for line in lines))


def _filled(parts: Sequence[str], width: int) -> list[str] | None:
    """Parts with dots between them, on as many lines as they need; None if one is too long."""
    lines: list[str] = []
    for part in parts:
        if "\n" in part or cell_len(part) > width:
            return None
        if lines and cell_len(joined := f"{lines[-1]} · {part}") <= width:
            lines[-1] = joined
        else:
            lines.append(part)
    return lines


def _listed(told: Sequence[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for head, cell in told:
        grid.add_row(head, Text(cell))
    return grid


def print_next(console: Console, steps: Sequence[tuple[str, str]]) -> None:
    """Print what to type next, from (arguments of lrsearch, what for), a line each.

    Where a terminal is too narrow for that, what it is for stands under the command.
    """
    column = max(len(command) for command, _ in steps)
    needs = len("Next    lrsearch ") + column + 2 + max(len(why) for _, why in steps)
    narrow = console.is_terminal and console.width < needs
    heads = ["Next", *[""] * (len(steps) - 1)]
    lines = [
        f"{head:<7} lrsearch {command}\n          {why}"
        if narrow
        else f"{head:<7} lrsearch {command:<{column}}  {why}"
        for head, (command, why) in zip(heads, steps, strict=True)
    ]
    console.print("\n".join(lines), soft_wrap=True)


def print_text(console: Console, text: str, *, indent: int = 0, style: str = "") -> None:
    """Print a paragraph; further lines are indented, and no word is cut where it can be helped.

    Whatever control characters a text from a database has are spelled out. In a pipe it is one
    line, which whoever reads it may wrap.
    """
    text = printable(text).rstrip()
    if console.is_terminal:
        width = max(console.width, indent + 12)
        text = textwrap.fill(
            text,
            width,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    console.print(text, style=style, soft_wrap=True)


def print_schedules(epochs: int) -> None:
    """Print every family with what is searched for a budget of ``epochs``."""
    from lrsearch.schedules import schedules_table

    heads = ("family", "what it does", "searched", "warmup", "stepped per", "note")
    rows = [
        [
            row.family,
            row.summary,
            "\n".join(row.parameters) or "lr only",
            row.warmup,
            row.interval,
            row.note or row.trap,
        ]
        for row in schedules_table(epochs)
    ]
    console = to_stdout()
    about = f"Budget {count(epochs, 'epoch')}. Every family also searches lr, on a log scale; "
    about += "a warmup is linear, from a tenth of the rate."
    print_text(console, about)
    console.print()
    print_rows(console, heads, rows, needs=120)


def print_tasks() -> None:
    """Print the built-in tasks."""
    from lrsearch.tasks import all_tasks

    rows = []
    for spec in all_tasks().values():
        models = ", ".join(
            f"{model} (default)" if model == spec.default_model and len(spec.models) > 1 else model
            for model in spec.models
        )
        data = "download" if spec.needs_download else "included"
        rows.append([spec.name, spec.summary, models, data])
    console = to_stdout()
    print_rows(console, ("task", "what", "models", "data"), rows, needs=80)
    console.print()
    print_text(console, "Your own: lrsearch run --task train_my.py:task")
