"""``python -m lrsearch`` and the ``lrsearch`` command are the same program."""

from __future__ import annotations

import sys

from lrsearch.cli import main

if __name__ == "__main__":
    sys.exit(main())
