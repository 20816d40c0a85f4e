"""Where results lie, and writing files whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from lrsearch.errors import LrsearchError


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically: a reader sees the old file or the new one.

    Raises:
        LrsearchError: If the folder is missing or cannot be written.
    """
    handle = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        if handle is not None:
            Path(name).unlink(missing_ok=True)
        raise LrsearchError(f"cannot write {path} ({error.strerror or error})") from None


def results_folder(out: str, name: str) -> Path:
    """``out/STUDY``, where STUDY cannot leave ``out`` whatever the study is called."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "study"
    if slug != name:
        slug = f"{slug[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Path(out) / slug
