"""What is said of schedules on fresh seeds, in words and tables: no training, made-up losses."""

from __future__ import annotations

from typing import Any

import pytest

from lrsearch.report.confirmed import Arm, Confirmed
from lrsearch.report.confirmed_html import confirmed_table
from lrsearch.report.confirmed_words import sentence
from lrsearch.stats import compare
from tests.test_stats import STEP_DECAY, WINNER


def fake_confirmation(*arms: Arm) -> Confirmed:
    loss = compare(arms[0].key, {a.key: a.val_loss for a in arms})
    seeds = tuple(arms[0].val_loss)
    return Confirmed("s-confirm", arms, seeds, 1, 1, tuple(loss), (), "accuracy")


def arm(key: str, losses: list[float], baseline: str | None = None, **more: Any) -> Arm:
    schedule = {"family": "LambdaLR", "lr": 0.3}
    return Arm(key, schedule, 1, baseline, dict(enumerate(losses)), {}, {}, (), **more)


def test_a_winner_is_called_worse_though_one_seed_that_did_not_train_hides_it_in_the_mean() -> (
    None
):
    """The digits study: so said 16 of 20 seeds, and the t-test of the losses saw nothing."""
    found = fake_confirmation(
        arm("#1", WINNER, untrained=(11,)), arm("StepLR", STEP_DECAY, "StepLR")
    )
    said = sentence(found)
    assert "On 20 fresh seeds, paired, it lost to step decay (worse on 16);" in said
    assert "step decay, its validation loss is 42% higher (95% interval 15% to 105%)" in said
    assert "On 1 of its 20 seeds it did not train." in said
    html = confirmed_table(found)
    assert "(#1)<small>1 of 20 seeds did not train</small></th>" in html
    assert '<td class="num">20</td><td class="num">0.2285</td>' in html
    assert '<td class="num">3 of 20</td>' in html


def test_a_better_winner_is_called_so_though_it_did_not_train_on_one_seed() -> None:
    losses = [0.9 * v for v in STEP_DECAY[:-1]]
    found = fake_confirmation(arm("#1", [*losses, 2.303]), arm("StepLR", STEP_DECAY, "StepLR"))
    assert found.stands
    assert "it beat step decay (better on 19)" in sentence(found)
    assert found.gain is not None
    assert found.gain.difference == pytest.approx(0.1)


def test_losses_below_zero_are_compared_as_they_are() -> None:
    found = fake_confirmation(
        arm("#1", [-0.2, -0.21, -0.22]), arm("StepLR", [0.1, 0.11, 0.09], "StepLR")
    )
    assert "its validation loss is 0.31 lower (95% interval 0.29 to 0.33)." in sentence(found)
    assert "signed-rank test of the losses, paired by seed (t-test below 10 seeds)" in found.how


def test_a_winner_that_beat_one_recipe_and_lost_to_another_does_not_stand() -> None:
    found = fake_confirmation(
        arm("#1", [0.2, 0.21, 0.22, 0.2]),
        arm("StepLR", [0.1, 0.11, 0.12, 0.1], "StepLR"),
        arm("constant", [0.4, 0.41, 0.42, 0.4], "constant"),
    )
    assert not found.stands
    assert "it beat constant rate (better on 4), and it lost to step decay" in sentence(found)


def test_nothing_is_said_of_recipes_that_were_never_run() -> None:
    bare = fake_confirmation(arm("#1", [0.2, 0.21, 0.22]), arm("#2", [0.3, 0.31, 0.32]))
    assert sentence(bare).startswith(
        "On 3 fresh seeds there is no usual recipe to compare it with: the search ran none."
    )
    alone = fake_confirmation(arm("constant", [0.2, 0.21, 0.22], "constant"))
    assert "no other usual recipe was there to compare it with." in sentence(alone)
    dead = fake_confirmation(arm("#1", [0.2, 0.21, 0.22]), arm("constant", [], "constant"))
    assert "no baseline finished to compare it with." in sentence(dead)
