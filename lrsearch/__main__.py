"""``python -m lrsearch`` and the ``lrsearch`` command are the same program."""

from __future__ import annotations

from typing import NoReturn

from lrsearch.cli import main
from lrsearch.ending import run_and_leave


def program() -> NoReturn:
    """The command line, as a process of its own."""
    run_and_leave(main)


if __name__ == "__main__":
    program()
