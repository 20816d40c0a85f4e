"""The gentler schedule: the lowest peak of all that only luck may have put behind the best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lrsearch.report.finalists import LEAST_COMPLETE, choose_arms, gentler
from lrsearch.report.tables import StudyTable, load
from lrsearch.schedules import Schedule
from lrsearch.storage import open_storage
from tests.synthetic import make_study
from tests.test_confirm import EPOCHS, found

RATES = np.geomspace(0.01, 1.0, 16)
LUCK = np.tile([-0.02, -0.02, 0.05, -0.05], 4)  # of the log loss


def lucky() -> np.ndarray:
    """Losses that differ by luck alone; trial 11 is the luckiest."""
    losses = 0.2 * np.exp(LUCK)
    losses[11] = 0.2 * np.exp(-0.06)
    return losses


def table_of(folder: Path, losses: np.ndarray, baseline: int = -1) -> StudyTable:
    made = [
        found(
            Schedule("ConstantLR", float(lr), EPOCHS),
            float(loss),
            baseline="constant" if i == baseline else None,
        )
        for i, (lr, loss) in enumerate(zip(RATES, losses, strict=False))
    ]
    storage = open_storage(f"sqlite:///{folder}/gentler.db")
    return load(make_study(name="s", made=made, epochs=EPOCHS, storage=storage))


def test_of_losses_that_differ_by_luck_alone_the_lowest_peak_is_taken(tmp_path: Path) -> None:
    table = table_of(tmp_path, lucky())
    assert table.best is not None
    assert table.best.number == 11
    milder = gentler(table)
    assert milder is not None
    assert milder.number == 0
    arms = choose_arms(table, top=3)
    assert [arm["trial"] for arm in arms[:2]] == [11, 0]


def test_what_is_worse_by_more_than_luck_is_no_answer(tmp_path: Path) -> None:
    losses = lucky()
    losses[:4] *= 1.5
    milder = gentler(table_of(tmp_path, losses))
    assert milder is not None
    assert milder.number == 4


def test_a_recipe_is_not_the_gentler_one(tmp_path: Path) -> None:
    milder = gentler(table_of(tmp_path, lucky(), baseline=0))
    assert milder is not None
    assert milder.number == 1


@pytest.mark.parametrize(("trials", "baseline"), [(LEAST_COMPLETE - 1, -1), (16, 3)])
def test_few_trials_or_a_recipe_that_won_have_none(
    tmp_path: Path, trials: int, baseline: int
) -> None:
    losses = 0.2 * np.exp(LUCK[:trials])
    losses[3] = 0.18
    assert gentler(table_of(tmp_path, losses, baseline)) is None


def test_losses_may_be_negative(tmp_path: Path) -> None:
    losses = LUCK.copy()
    losses[11] = -0.06
    milder = gentler(table_of(tmp_path, losses))
    assert milder is not None
    assert milder.number == 0


def test_a_loop_of_the_users_own_is_compared_at_the_same_other_parameters(tmp_path: Path) -> None:
    table = table_of(tmp_path, lucky())
    decayed = [
        replace(t, others={"weight_decay": 0.1 if t.number in (5, 11) else 0.0})
        for t in table.trials
    ]
    milder = gentler(replace(table, trials=tuple(decayed)))
    assert milder is not None
    assert milder.number == 5
