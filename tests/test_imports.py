"""Large imports without the garbage collector, which is as before afterwards."""

from __future__ import annotations

import gc

import pytest

from lrsearch.imports import uncollected


@pytest.mark.parametrize("keep", [False, True])
def test_no_collection_inside_and_as_before_afterwards(keep: bool) -> None:
    frozen = gc.get_freeze_count()
    try:
        with uncollected(keep=keep):
            assert not gc.isenabled()
        assert gc.isenabled()
        assert (gc.get_freeze_count() > frozen) == keep
    finally:
        gc.unfreeze()
