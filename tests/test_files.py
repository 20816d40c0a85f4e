"""Files are written whole or not at all, for whom the user's settings say, and where they say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrsearch.errors import LrsearchError
from lrsearch.files import write_text


@pytest.fixture(params=[0o022, 0o077], ids=["open", "private"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_is_readable_for_those_whom_the_umask_lets(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "new" / "best.yaml"
    write_text(path, "ä")
    assert path.read_text(encoding="utf-8") == "ä"
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_link_goes_on_pointing_to_its_file(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_stays_one_and_gets_the_text(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "text")
    assert os.read(reader, 9) == b"text"
    os.close(reader)
    assert pipe.is_fifo()


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(
            LrsearchError, match=r"cannot write .*(: it is a folder| \(File name too long)"
        ):
            write_text(path, "text")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
