"""What is said of schedules on fresh seeds, in words and tables: no training, made-up losses."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console

from lrsearch.report.answer import _what, sentences
from lrsearch.report.answer_html import confirmed_table
from lrsearch.report.confirmed import Arm, Confirmed
from lrsearch.report.confirmed_words import (
    of_edges,
    of_lowest,
    of_winner,
    print_confirmed,
    sentence,
)
from lrsearch.report.robust import Robust
from lrsearch.report.tables import TrialRow, answer, load
from lrsearch.stats import compare
from tests.synthetic import make_study
from tests.test_stats import STEP_DECAY, WINNER


def fake_confirmation(*arms: Arm) -> Confirmed:
    loss = compare(arms[0].key, {a.key: a.losses for a in arms})
    seeds = tuple(arms[0].losses)
    return Confirmed("s-confirm", arms, seeds, 1, 1, tuple(loss), "accuracy")


def arm(key: str, losses: list[float], baseline: str | None = None, **more: Any) -> Arm:
    """Losses by seed; a lost one is infinite."""
    schedule = {"family": "LambdaLR", "lr": 0.3}
    kept = {seed: v for seed, v in enumerate(losses) if math.isfinite(v)}
    lost = tuple(seed for seed, v in enumerate(losses) if not math.isfinite(v))
    trial = int(key[1:]) if key.startswith("#") else 50
    return Arm(key, schedule, trial, baseline, kept, {}, {}, lost, **more)


def headline(found: Confirmed) -> str:
    """As on the page, with the winner the best of the search."""
    schedule, baseline = dict(found.winner.schedule), found.winner.baseline
    best = SimpleNamespace(
        family=schedule["family"],
        lr=schedule["lr"],
        baseline=baseline,
        warmup=0,
        schedule=schedule,
        own_params={},
        others={},
    )
    return _what(cast(TrialRow, best), found)


def about(loss: float, n: int = 12) -> list[float]:
    """So many losses about one, other ones for each."""
    return list(loss * np.exp(np.random.default_rng(int(1000 * loss)).normal(0, 0.03, n)))


def test_a_winner_is_called_worse_though_one_seed_that_did_not_train_hides_it_in_the_mean() -> (
    None
):
    """The digits study: so said 16 of 20 seeds, and the t-test of the losses saw nothing."""
    found = fake_confirmation(
        arm("#1", WINNER, untrained=(11,)), arm("StepLR", STEP_DECAY, "StepLR")
    )
    said = sentence(found)
    assert (
        "On 20 fresh seeds, paired, the search's winner lost to the baseline StepLR "
        "(worse on 16, equal on 1);" in said
    )
    usual = "StepLR, its validation loss is, where they differ, typically 42% higher"
    assert f"{usual} (95% interval 15% to 105%)" in said
    assert "On 1 of its 20 seeds it did not train." in said
    html = confirmed_table(found)
    assert "(#1)<small>1 of 20 seeds did not train</small></th>" in html
    assert '<td class="num">20</td><td class="num">0.2285</td>' in html
    assert '<td class="num">3 of 20 (1 equal)</td>' in html


def test_a_better_winner_is_called_so_though_it_did_not_train_on_one_seed() -> None:
    losses = [0.9 * v for v in STEP_DECAY[:-1]]
    found = fake_confirmation(arm("#1", [*losses, 2.303]), arm("StepLR", STEP_DECAY, "StepLR"))
    assert found.decision.stands
    assert "the search's winner beat the baseline StepLR (better on 19)" in sentence(found)
    assert "its validation loss is typically 10% lower" in sentence(found)  # its mean is higher
    assert found.decision.gain is not None
    assert found.decision.gain.difference == pytest.approx(0.1)


def test_losses_below_zero_are_compared_as_they_are() -> None:
    found = fake_confirmation(
        arm("#1", [-0.2, -0.21, -0.22]), arm("StepLR", [0.1, 0.11, 0.09], "StepLR")
    )
    assert "its validation loss is on average 0.31 lower (95% interval 0.29 to 0.33)." in sentence(
        found
    )
    assert "Interval and p: t-test of the losses, paired by seed, for all" in found.how


def test_a_winner_that_beat_one_recipe_and_lost_to_another_does_not_stand() -> None:
    found = fake_confirmation(
        arm("#1", [0.2, 0.21, 0.22, 0.2]),
        arm("StepLR", [0.1, 0.11, 0.12, 0.1], "StepLR"),
        arm("ConstantLR", [0.4, 0.41, 0.42, 0.4], "ConstantLR"),
    )
    assert not found.decision.stands
    assert (
        "the search's winner beat the baseline ConstantLR (better on 4), and it lost "
        "to the baseline StepLR" in sentence(found)
    )


def test_nothing_is_said_of_recipes_that_were_never_run() -> None:
    bare = fake_confirmation(arm("#1", [0.2, 0.21, 0.22]), arm("#2", [0.3, 0.31, 0.32]))
    assert sentence(bare).startswith(
        "On 3 fresh seeds there is no usual recipe to compare it with: the search "
        "trained none to the end."
    )
    alone = fake_confirmation(arm("ConstantLR", [0.2, 0.21, 0.22], "ConstantLR"))
    assert "no other usual recipe was there to compare it with." in sentence(alone)
    dead = fake_confirmation(arm("#1", [0.2, 0.21, 0.22]), arm("ConstantLR", [], "ConstantLR"))
    assert "no baseline finished to compare it with." in sentence(dead)


def test_recipes_are_named_in_the_headline_unless_it_is_all_of_many() -> None:
    same, names = about(0.2, 10), ("ConstantLR", "StepLR", "OneCycleLR")
    recipes = [arm(name, same[::-1], name) for name in names]
    assert headline(fake_confirmation(arm("#1", same), *recipes)).startswith(
        "Nothing found is surely better than **any usual recipe**: "
    )
    higher = arm("CosineAnnealingLR", about(0.4, 10), "CosineAnnealingLR")
    assert headline(fake_confirmation(arm("#1", same), *recipes, higher)).startswith(
        "Nothing found is surely better than the baselines **ConstantLR**, **StepLR** and "
        "**OneCycleLR**: "
    )


LOST = math.inf


def test_a_winner_that_is_lost_on_half_of_the_seeds_is_not_recommended() -> None:
    """Its finite losses are the lowest; they were all that was compared."""
    found = fake_confirmation(
        arm("#1", [*[LOST] * 5, *about(0.1, 5)]),
        arm("StepLR", about(0.15, 10), "StepLR"),
        arm("ConstantLR", about(0.2, 10), "ConstantLR"),
    )
    assert not found.decision.stands
    assert headline(found).startswith(
        "Nothing found is surely better than the baselines **StepLR** and **ConstantLR**: "
    )
    said = sentence(found)
    assert (
        "On 10 fresh seeds, paired, the search's winner is **not distinguishable** from "
        "the baselines StepLR" in said
    )
    assert "On 5 of 10 seeds it diverged or failed." in said
    assert "in the mean of those with no lost seeds, is **StepLR baseline**" in said
    assert "below the winner on 5 of 10" in said
    assert "A lost seed counts as 10 times the highest loss." in found.how
    console = Console(width=160, record=True)
    print_confirmed(found, console)
    assert "5 (+5 lost)" in console.export_text()
    assert '<td class="num">5 (+5 lost)</td>' in confirmed_table(found)
    assert "(#1) 0.09973 (+5 lost); StepLR" in repr(found)


def test_a_recipe_that_is_lost_on_all_seeds_was_beaten() -> None:
    found = fake_confirmation(
        arm("#1", about(0.1)), arm("ConstantLR", [LOST] * 12, "ConstantLR"), arm("#2", about(0.2))
    )
    assert found.decision.stands
    assert "the search's winner beat the baseline ConstantLR (better on 12)." in sentence(found)


def test_losses_below_zero_with_a_lost_seed() -> None:
    found = fake_confirmation(
        arm("#1", [-0.2, -0.21, -0.22, LOST]), arm("StepLR", [0.1, 0.11, 0.09, 0.1], "StepLR")
    )
    assert found.loss[0].lower == 3
    assert found.loss[0].higher == 1
    assert found.loss[0].verdict() == "unclear"
    assert "A lost seed counts as far above every other loss." in found.how


def test_the_headline_names_just_the_recipes_that_were_not_beaten() -> None:
    """The strongest in the mean is another than the one it lost to."""
    dead = [2.3, 2.3, *about(0.12, 18)]
    found = fake_confirmation(
        arm("#1", about(0.14, 20)),
        arm("StepLR", about(0.16, 20), "StepLR"),
        arm("CosineAnnealingLR", dead, "CosineAnnealingLR"),
    )
    assert found.decision.strongest is found.arm("StepLR")
    assert headline(found) == (
        "Nothing found is surely better than the baseline **CosineAnnealingLR**: **LambdaLR** at "
        "a peak learning rate of **0.3** only looked best."
    )


def test_a_winner_that_was_lower_on_all_of_few_seeds_did_not_only_look_best() -> None:
    found = fake_confirmation(
        arm("#1", [0.03, 0.05, 0.3]),
        arm("StepLR", [1.0, 0.9, 0.8], "StepLR"),
        arm("ConstantLR", [0.9, 0.7, 0.6], "ConstantLR"),
    )
    assert not found.decision.stands
    assert headline(found).endswith("was lower on all 3 fresh seeds, too few to be sure.")
    stopped = fake_confirmation(arm("#1", [0.03, 0.05, 0.3, 0.2]), *found.arms[1:])
    assert headline(stopped).endswith("was lower on all 3 fresh seeds, too few to be sure.")


def test_nine_of_nine_seeds_are_not_called_too_few_where_one_of_them_empties_the_t_test() -> None:
    """Six comparisons: nine seeds of one mind would do (p 0.023), were the amounts alike."""
    recipe = [*about(0.15, 8), 2.303]
    others = [arm(f"#{i}", about(0.14, 9)) for i in range(2, 5)]
    recipes = [arm(name, recipe, name) for name in ("StepLR", "OneCycleLR", "ConstantLR")]
    found = fake_confirmation(arm("#1", about(0.13, 9)), *others, *recipes)
    row = found.against("StepLR")
    assert row is not None
    assert (row.lower, row.n, row.verdict()) == (9, 9, "unclear")
    assert headline(found).endswith(
        "was lower on all 9 fresh seeds, by amounts too uneven to be sure."
    )


def test_a_winner_that_held_near_the_edge_did_not_only_look_best() -> None:
    found = fake_confirmation(
        arm("#1", about(0.1), raised=2.3),
        arm("#2", about(0.12), raised=0.13),
        arm("StepLR", about(0.2), "StepLR"),
    )
    assert found.decision.stands
    assert found.decision.held is found.arm("#2")
    assert headline(found).endswith("**0.3** lies near the edge of what this task bears.")


def test_a_winner_near_the_edge_is_not_said_to_beat_recipes_that_it_did_not_beat() -> None:
    """OneCycleLR was lost on a seed, so that StepLR is the strongest; else it was as good."""
    found = fake_confirmation(
        arm("#1", about(0.13), raised=2.303),
        arm("#2", about(0.159), raised=0.2),
        arm("StepLR", about(0.16), "StepLR"),
        arm("OneCycleLR", [LOST, *about(0.131)[1:]], "OneCycleLR"),
    )
    assert headline(found).endswith(
        "is better than the baseline **StepLR**, but near the edge of what this task bears."
    )


def test_to_beat_the_weakest_recipe_alone_is_not_enough() -> None:
    found = fake_confirmation(
        arm("#1", about(0.151)),
        arm("ConstantLR", about(0.2), "ConstantLR"),
        arm("StepLR", about(0.15), "StepLR"),
    )
    assert found.decision.strongest is found.arm("StepLR")
    assert not found.decision.stands
    assert headline(found).startswith(
        "Nothing found is surely better than the baseline **StepLR**: "
    )


def test_a_winner_that_is_a_recipe_is_compared_with_the_others() -> None:
    def of(own: float, other: float) -> Confirmed:
        return fake_confirmation(
            arm("StepLR", about(own), "StepLR"),
            arm("CosineAnnealingLR", about(other), "CosineAnnealingLR"),
        )

    assert headline(of(0.1, 0.2)) == "Train with **LambdaLR** at a peak learning rate of **0.3**."
    assert headline(of(0.2, 0.1)).startswith(
        "Nothing found is surely better than the baseline **CosineAnnealingLR**: "
    )
    assert headline(of(0.2, 0.1)).endswith("only looked best.")
    assert headline(of(0.15, 0.151)).endswith("was the best recipe in the search.")


def test_what_is_better_than_a_winner_that_is_a_recipe_is_the_answer() -> None:
    found = fake_confirmation(
        arm("StepLR", about(0.2), "StepLR"),
        arm("#2", about(0.1)),
        arm("CosineAnnealingLR", about(0.201), "CosineAnnealingLR"),
    )
    assert found.held is found.arm("#2")
    assert found.decision.gain == found.decision.lead
    assert found.decision.strongest is found.winner
    assert "is better than the baseline **StepLR**; " in headline(found)
    assert "below the search's winner on 12 of 12, by 48%" in sentence(found)


def test_what_came_lowest_is_not_the_answer_where_a_recipe_beat_it() -> None:
    """StepLR has the lower mean; ConstantLR is lower on all seeds but two."""
    found = fake_confirmation(
        arm("#1", about(0.4, 30)),
        arm("#2", about(0.14, 30)),
        arm("StepLR", about(0.2, 30), "StepLR"),
        arm("ConstantLR", [2.3, 2.3, *about(0.1, 28)], "ConstantLR"),
    )
    assert found.lowest is found.arm("#2")
    assert found.decision.lead is not None
    assert found.decision.lead.verdict() == "better"
    assert found.held is found.winner


def test_the_lead_is_compared_as_one_of_all_pairs() -> None:
    found = fake_confirmation(
        arm("#1", about(0.4)), arm("#2", about(0.1)), arm("StepLR", about(0.12), "StepLR")
    )
    assert found.decision.lead is not None
    assert found.decision.lead.p is not None
    assert found.decision.lead.p_corrected == pytest.approx(3 * found.decision.lead.p)
    assert found.decision.gain == found.decision.lead


def test_the_lead_counts_lost_seeds() -> None:
    found = fake_confirmation(
        arm("#1", [LOST, LOST, *about(0.4, 10)]),
        arm("#2", [LOST, *about(0.1, 11)]),
        arm("StepLR", [*about(0.12, 11), LOST], "StepLR"),
    )
    assert found.lowest is found.arm("#2")
    assert found.decision.lead is not None
    assert (found.decision.lead.n, found.decision.lead.higher) == (12, 1)
    assert "below the baseline StepLR on 11 of 12" in sentence(found)


def test_ten_seeds_are_enough_for_eight_arms() -> None:
    """All of 28 pairs: ranks of ten cannot be significant."""
    others = [arm(f"#{i}", about(0.13 + i / 1000, 10)) for i in range(2, 7)]
    found = fake_confirmation(
        arm("#1", about(0.2, 10)),
        *others,
        arm("StepLR", about(0.18, 10), "StepLR"),
        arm("ConstantLR", about(0.19, 10), "ConstantLR"),
    )
    assert found.held is found.lowest
    assert found.decision.lead is not None
    assert found.decision.lead.test == "t"


def test_what_came_lowest_in_the_mean_may_be_higher_on_most_seeds() -> None:
    """It was "below the baseline StepLR on 1 of 13, by −48%"."""
    found = fake_confirmation(
        arm("#1", about(0.4, 13)),
        arm("#2", about(0.15, 13)),
        arm("StepLR", [2.3, *about(0.1)], "StepLR"),
    )
    assert found.lowest is found.arm("#2")
    said = of_lowest(found)
    assert (
        "winner on 13 of 13, below the baseline StepLR on 1 of 13, but typically higher by 48% ("
        in said
    )


@pytest.mark.parametrize(
    ("own", "constant", "says"),
    [([0.2, 0.4], [0.25, LOST], "lower than"), ([0.2, LOST], [0.25, 0.3], "higher than")],
)
def test_of_two_seeds_a_lost_one_counts_in_words_as_in_the_table(
    own: list[float], constant: list[float], says: str
) -> None:
    """The mean was of those that were left: lower for who had lost the harder seed."""
    found = fake_confirmation(arm("#1", own), arm("ConstantLR", constant, "ConstantLR"))
    assert (
        f"the mean validation loss of the search's winner was {says} that of the "
        "baseline ConstantLR." in of_winner(found)
    )
    assert (found.loss[0].difference > 0) == (says == "lower than")
    assert found.how.endswith("below 3 seeds. A lost seed counts as 10 times the highest loss.")


def test_of_two_seeds_only_those_of_both_are_compared() -> None:
    """As while more are in training."""
    found = fake_confirmation(
        arm("#1", [0.2, 0.4]), arm("ConstantLR", [0.25], "ConstantLR"), arm("StepLR", [], "StepLR")
    )
    said = (
        "On 2 fresh seeds the mean validation loss of the search's winner was lower than that of "
        "the baseline ConstantLR."
    )
    assert said in of_winner(found)
    assert "lost" not in found.how


def test_few_seeds_are_said_to_be_few() -> None:
    few = fake_confirmation(
        arm("#1", [0.2, 0.21, 0.22, 0.2]), arm("StepLR", [0.21, 0.2, 0.22, 0.23], "StepLR")
    )
    assert "So few seeds seldom tell: add some with `--seeds`." in sentence(few)


def test_equal_arms_have_no_interval_in_words() -> None:
    same = about(0.2)
    found = fake_confirmation(arm("#1", same), arm("StepLR", same, "StepLR"))
    assert sentence(found).endswith(
        "the search's winner is **not distinguishable** from the baseline StepLR (equal)."
    )


def test_the_method_is_that_of_the_rows() -> None:
    mixed = fake_confirmation(
        arm("#1", about(0.1)),
        arm("StepLR", about(0.2), "StepLR"),
        arm("ConstantLR", about(0.3, 5), "ConstantLR"),
    )
    assert [row.test for row in mixed.loss] == ["wilcoxon", "t"]
    assert "signed-rank test of the losses' logarithms, paired by seed (t-test " in mixed.how
    ranks = fake_confirmation(arm("#1", about(0.1)), arm("StepLR", about(0.2), "StepLR"))
    assert "t-test" not in ranks.how


def test_what_held_comes_before_the_winner_that_did_not() -> None:
    found = fake_confirmation(
        arm("#1", about(0.4)), arm("#2", about(0.1)), arm("StepLR", about(0.2), "StepLR")
    )
    first, rest = of_lowest(found), of_winner(found)
    assert sentence(found) == f"{first} {rest}"
    assert first.startswith("Lowest on 12 fresh seeds, in the mean, is **LambdaLR, lr 0.3 (#2)**")
    assert rest.startswith(
        "The search's winner, LambdaLR, lr 0.3 (#1): on 12 fresh seeds, paired, it lost to the "
        "baseline StepLR"
    )


def test_what_is_much_higher_is_told_as_in_the_table() -> None:
    found = fake_confirmation(
        arm("#1", [0.1993 * v for v in (1, 1.01, 0.99)]), arm("StepLR", [0.1] * 3, "StepLR")
    )
    assert "its validation loss is on average 99% higher (95% interval 94% to 104%)." in sentence(
        found
    )
    assert '<td class="num">−99%</td>' in confirmed_table(found)
    wide = fake_confirmation(
        arm("#1", [0.1, 0.12, 90.0]), arm("StepLR", [0.11, 0.15, 0.1], "StepLR")
    )
    assert "(95% interval −99" in sentence(wide)
    assert " to over 1,000%)" in sentence(wide)
    assert "under −1,000% to 99" in confirmed_table(wide)


@pytest.mark.parametrize(
    ("label", "where"),
    [
        ("", ""),
        ("sqlite:///lrsearch.db", ""),
        ("sqlite:///my runs.db", " --storage 'sqlite:///my runs.db'"),
        ("mysql+pymysql://me:***@db/runs", " --storage URL"),
    ],
)
def test_the_commands_of_a_report_name_its_database(label: str, where: str) -> None:
    table = replace(load(make_study(20)), storage_url=label)
    assert f"`lrsearch confirm digits{where}`" in sentences(table, answer(table), None)[1]
    found = replace(
        fake_confirmation(arm("#1", [0.1, 0.2]), arm("ConstantLR", [0.2, 0.3], "ConstantLR")),
        storage=label,
    )
    assert f"`lrsearch confirm s{where} --seeds 10`" in of_winner(found)


def test_what_came_lowest_but_bears_no_higher_rate_is_not_the_answer() -> None:
    """One run at 1.7 times the rates tells what five seeds may hide (studies/winners)."""
    edge = arm("#1", about(0.13), raised=2.303)
    found = fake_confirmation(
        edge, arm("#2", about(0.14), raised=0.2), arm("StepLR", about(0.16), "StepLR")
    )
    assert edge.near_edge
    assert found.winner is edge
    assert found.lowest is found.held is found.arm("#2")
    said = sentence(found)
    assert "of those that bear 1.7 times their rates, is **LambdaLR, lr 0.3 (#2)**" in said
    assert (
        "At 1.7 times its rates **LambdaLR, lr 0.3 (#1)** ended at 2.303: it lies near the edge "
        "of what this task bears, and may fail on another seed." in said
    )


def test_a_winner_that_holds_but_bears_no_higher_rate_is_not_said_to_be_trained_with() -> None:
    """It said to train with the winner, and below to train with another."""
    table = load(make_study(20))
    found = answer(table)
    assert found is not None
    safe = next(t for t in table.trials if t.number != found.best.number and t.family)
    held = fake_confirmation(
        arm(f"#{found.best.number}", about(0.13), raised=2.303),
        arm(f"#{safe.number}", about(0.159), raised=0.2),
        arm("StepLR", about(0.16), "StepLR"),
    )
    assert held.decision.stands
    assert not held.decision.decided
    first, second, *_ = sentences(
        table, replace(found, robust=Robust(safe, {safe.number: [0.2]})), held
    )
    assert first.endswith(
        "is better than the usual recipes, but near the edge of what this task bears."
    )
    assert second.startswith(f"To be safe, train with **{safe.family}**")


@pytest.mark.parametrize(
    ("mean", "raised", "edgy"),
    [
        (0.2, 0.55, False),
        (0.2, 0.65, True),
        (0.2, math.inf, True),
        (0.2, None, False),
        (-1.0, 0.9, False),
        (-1.0, 2.0, True),
        (-1.0, math.inf, True),
    ],
)
def test_an_arm_is_near_the_edge_above_thrice_its_mean_or_below_0_above_its_first_epoch(
    mean: float, raised: float | None, edgy: bool
) -> None:
    one = arm("#1", [mean, mean], raised=raised, first=2.0)
    assert one.near_edge == edgy
    two = arm("#2", [2 * abs(mean)] * 2, raised=2 * abs(mean))
    found = fake_confirmation(one, two, arm("StepLR", [5.0, 5.0], "StepLR"))
    assert found.lowest is (two if edgy else one)
    all_there = fake_confirmation(one, arm("#3", [4.0, 4.0], raised=math.inf))
    assert all_there.lowest is one, "where all lie near the edge that tells nothing"
    if raised == math.inf:
        assert "(#1)** diverged: it lies" in of_edges(found)
    assert found.to_dict()["arms"][0]["raised_val_loss"] == (
        "diverged" if raised == math.inf else raised
    )
