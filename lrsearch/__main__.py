"""``python -m lrsearch`` and the ``lrsearch`` command are the same program."""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

from lrsearch.cli import main
from lrsearch.program import run_and_leave


def program() -> NoReturn:
    """The command line, as a process of its own."""
    _mend_streams()
    run_and_leave(main)


def _mend_streams() -> None:
    """Have all three, and no character that one cannot show.

    A closed one (``>&-``, some services) is None in Python, and its number would go to the next
    file that is opened. One that is no UTF-8 would end the program at the first minus sign.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif name == "stdout" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    program()
