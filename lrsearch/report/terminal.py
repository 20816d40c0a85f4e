"""Tables for a terminal: the families with what is searched, the tasks with their models."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table


def to_stdout() -> Console:
    """Of the terminal's width, or 140 where it is none; brackets are no markup."""
    width = None if sys.stdout.isatty() else 140
    return Console(file=sys.stdout, highlight=False, markup=False, width=width)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for index, name in enumerate(columns):
        table.add_column(name, no_wrap=index == 0)
    return table


def print_schedules(epochs: int) -> None:
    """Print every family with what is searched for a budget of ``epochs``."""
    from lrsearch.schedules import schedules_table

    table = _table("family", "what it does", "searched", "warmup", "stepped per", "note")
    for row in schedules_table(epochs):
        table.add_row(
            row.family,
            row.summary,
            "\n".join(row.parameters) or "lr only",
            row.warmup,
            row.interval,
            row.note or row.trap,
        )
    console = to_stdout()
    console.print(f"Budget {epochs} epochs. Every family also searches lr, on a log scale.\n")
    console.print(table)


def print_tasks() -> None:
    """Print the built-in tasks."""
    from lrsearch.tasks import all_tasks

    table = _table("task", "what", "models", "data")
    for spec in all_tasks().values():
        models = ", ".join(
            f"{model} (default)" if model == spec.default_model and len(spec.models) > 1 else model
            for model in spec.models
        )
        table.add_row(
            spec.name, spec.summary, models, "download" if spec.needs_download else "included"
        )
    console = to_stdout()
    console.print(table)
    console.print("\nYour own: lrsearch run --task train_my.py:task", markup=False)
