"""Checkpoints: whole or not there, and never code."""

from __future__ import annotations

import errno
import os
import pickle
import stat
from pathlib import Path

import pytest
import torch
from torch import nn

from lrsearch.training import copies
from lrsearch.training.checkpoint import CheckpointError, load, save

STATE = {
    "epoch": 3,
    "lr": 0.1,
    "none": None,
    "model": {"weight": torch.randn(3, 4), "images": torch.randn(2, 3, 4, 4)},
    "scheduler": {"milestones": [1, 2], "factors": (0.5, float("inf")), "text": "min"},
}


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "7.pt"
    last = torch.channels_last
    state = {**STATE, "last": torch.randn(2, 3, 4, 4).contiguous(memory_format=last)}
    save(path, state)
    loaded = load(path)
    assert loaded is not None
    assert loaded["last"].is_contiguous(memory_format=last)
    assert torch.equal(loaded["model"]["weight"], STATE["model"]["weight"])  # type: ignore[index]
    assert loaded["scheduler"] == STATE["scheduler"]
    assert [path.name for path in path.parent.iterdir()] == ["7.pt"]


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert load(tmp_path / "nothing.pt") is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_damaged_at_every_length(tmp_path: Path, share: float) -> None:
    path = tmp_path / "7.pt"
    save(path, STATE)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"7\.pt is (damaged|not one)"):
        load(path)


def test_flipped_bytes_are_found(tmp_path: Path) -> None:
    path = tmp_path / "7.pt"
    save(path, STATE)
    content = bytearray(path.read_bytes())
    for place in (20, 60, len(content) // 3, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="checksum differs"):
            load(path)


@pytest.mark.parametrize("content", [b"lrsearch trial 2\nmore", b"PK\x03\x04", pickle.dumps(3)])
def test_a_file_of_another_version_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "7.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="not one of this version"):
        load(tmp_path / "7.pt")


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("made_by_a_checkpoint",)


def test_a_file_with_code_is_refused_and_the_code_does_not_run(in_tmp: Path) -> None:
    save("7.pt", {"epoch": Harmful()})
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        load("7.pt")
    assert not Path("made_by_a_checkpoint").exists()


def test_a_failing_save_leaves_the_old_state_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "7.pt"
    save(path, {"epoch": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(path, {"epoch": 2})
    assert load(path) == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["7.pt"]


def test_a_file_system_that_flushes_no_folders_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    save(tmp_path / "7.pt", {"epoch": 1})
    assert load(tmp_path / "7.pt") == {"epoch": 1}


def test_what_is_no_plain_value_cannot_come_back_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "7.pt"
    save(path, {"epoch": 1, "thing": Path("x")})
    with pytest.raises(CheckpointError):
        load(path)


def test_a_plain_tensor_is_kept_if_it_counts_and_not_if_it_is_large_as_a_mask() -> None:
    class Masked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.steps, self.mask = torch.zeros(1), torch.ones(100, 100).tril()

    def kept() -> set[str]:
        return {name.removesuffix(copies.ATTRIBUTE) for name in copies.left_out(model, fixed)}

    model = nn.Sequential(Masked())
    fixed = copies.constants(model)
    always = {"0.steps", "0.in_features", "0.out_features"}
    assert kept() == always
    model[0].words, model[0].of_kind = {str(i): i for i in range(5000)}, {Path("x"): 1}
    assert kept() == always  # a vocabulary; and what a checkpoint cannot hold
    model[0].mask.mul_(2)
    assert kept() == always | {"0.mask"}
    model[0].mask = torch.zeros(100, 100)  # it was another one when the model was made
    assert kept() == always | {"0.mask"}
