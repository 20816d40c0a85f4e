"""The replay of recorded curves: bars, in small, below which pruner and sampler may not fall."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from lrsearch.prediction.surrogate import Array, trace_features
from lrsearch.schedules import RandomParams, Schedule, Space
from lrsearch.search.pruning import SHARE
from lrsearch.storage import open_storage
from tests.benchmarks import across, frontier, live, pool, record, tasks
from tests.benchmarks.recorded import Record, read
from tests.benchmarks.replay import Score, score

EPOCHS = 20
FIGURES = ("task", "arm", "seed", "best", "epochs", "best at 0.25", "best at 0.5")


def lucky_losses(lr: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """A rate that is still high hides how good it is; luck comes in with every step."""
    progress = np.cumsum(lr)
    luck = np.cumsum(np.sqrt(lr) * rng.standard_normal(len(lr))) * 0.003
    avg = 0.3 + 0.05 * np.log(lr.sum()) ** 2 + np.exp(-3 * progress) + luck
    return avg + 2.0 * lr, avg + 0.3 * lr + 0.005 * rng.standard_normal(len(lr))


@pytest.fixture(scope="module")
def made_up() -> Record:
    space, rng = Space(None, EPOCHS, (1e-3, 1.0)), np.random.default_rng(0)
    drawn = [space.suggest(RandomParams(rng)) for _ in range(160)]
    lr = np.stack([s.trace().lr for s in drawn if s.family != "ReduceLROnPlateau"])
    losses = np.array([lucky_losses(row, rng) for row in lr])
    return Record("made up", lr, losses[:, 0], losses[:, 1], trace_features(lr))


def test_a_third_of_the_epochs_finds_one_of_the_best_on_recorded_curves(
    real_data: Path,
) -> None:
    files = [real_data.parent / "curves" / f"{name}.npz" for name in ("digits", "fashion")]
    if not all(file.exists() for file in files):
        pytest.skip("recorded curves not found beside the data")
    found = [score(read(str(file)), "ours", "both", 2, 100, 4) for file in files]
    assert np.mean([each.epochs for each in found]) < 1 / 3
    assert np.mean([each.regret for each in found]) < 0.015


@pytest.mark.parametrize(
    ("source", "study", "message"),
    [
        ("nothere.npz", None, "nothere.npz does not exist; give a curve file"),
        ("sqlite:///nothere.db", "mine", "nothere.db does not exist"),
        ("sqlite:///there.db", "yours", "name one of the studies with --study: mine"),
        ("sqlite:///there.db", "mine", "study 'mine' has no completed trial to replay"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_one_line(
    in_tmp: Path, source: str, study: str | None, message: str
) -> None:
    optuna.create_study(study_name="mine", storage=open_storage("sqlite:///there.db"))
    with pytest.raises(SystemExit, match=message):
        read(source, study)


def test_a_smaller_share_takes_more_epochs_and_keeps_more_of_the_best(made_up: Record) -> None:
    safe, rash = (score(made_up, f"ours:{c}", "both", 1, 50, 4) for c in (0.03, 0.9))
    assert safe.epochs > rash.epochs
    assert safe.lost <= rash.lost


def test_a_pruner_of_the_user_s_own_is_replayed_by_its_place(
    made_up: Record, in_tmp: Path
) -> None:
    text = "import optuna\n\n\ndef quick():\n    return optuna.pruners.MedianPruner(5, 0)\n"
    Path("mine.py").write_text(text)
    own, median = (score(made_up, p, "raw", 2, 50, 4) for p in ("mine.py:quick", "median"))
    assert own.regrets == median.regrets
    assert own.epochs == median.epochs < 1
    assert score(made_up, "optuna.pruners:NopPruner", "raw", 1, 50, 4).epochs == 1
    for name, message in {
        "quick": "unknown pruner 'quick'",
        "mine.py:slow": "mine.py:slow: .*'slow'",
        "mine.py:optuna": "not callable",
        "optuna.pruners:PercentilePruner": "missing 1 required",
        "builtins:int": "makes no optuna.pruners.BasePruner, but 0",
    }.items():
        with pytest.raises(SystemExit, match=message):
            score(made_up, name, "raw", 1, 50, 4)


def test_who_knows_the_task_needs_fewer_epochs_and_loses_less(made_up: Record) -> None:
    known, learnt = (
        score(made_up, f"{who}:0.02", "both", 3, 50, 4) for who in ("informed", "ours")
    )
    assert known.epochs < learnt.epochs
    assert known.regret <= learnt.regret + 0.01
    with pytest.raises(SystemExit, match="beyond the replayed, has 0"):
        score(made_up, "informed:0.02", "both", 1, 1000, 4)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", ["trace", "tpe", "qmc"])
def test_any_sampler_is_replayed_over_recorded_schedules(made_up: Record, sampler: str) -> None:
    some, raw = slice(0, 24), made_up.raw[:24].copy()
    raw[::5, -1] = np.inf
    record = Record("some", made_up.lr[some], raw, made_up.avg[some], made_up.features[some])
    begin = pool.by_promise if sampler == "trace" else pool.by_name(sampler)
    found = pool.regrets(record, begin, 24, workers=4, seed=0)
    assert (np.diff(found) <= 0).all()
    assert found[-1] == 0  # each was chosen, once


def test_the_sampler_finds_a_better_one_of_the_pool_than_random_names(made_up: Record) -> None:
    trace, random = (
        np.mean([pool.regrets(made_up, begin, 30, 4, seed)[-1] for seed in range(5)])
        for begin in (pool.by_promise, pool.by_name("random"))
    )
    assert trace < 0.7 * random


def test_a_pool_is_replayed_from_the_command_line(
    tmp_path: Path, made_up: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {"lr": made_up.lr[:9], "val_loss": made_up.raw[:9], "avg_val_loss": made_up.avg[:9]}
    np.savez(tmp_path / "few.npz", **arrays)
    pool.main([str(tmp_path / "few.npz"), "--orders", "1", "--samplers", "trace", "random"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["few,", "9", "schedules", "regret", "after", "9"]
    assert [row.split() for row in rows] == [
        [name, "0.00%", "±", "0.00%"] for name in ("trace", "random")
    ]


def row(pruner: str, epochs: float, regret: float) -> Score:
    return Score("digits", pruner, "both", epochs, regret, 0.0, 0.5, 0.0, 0.1, [regret])


def test_the_table_says_what_ours_would_do_with_the_epochs_of_another() -> None:
    rows = [row("ours:0.1", 0.2, 0.02), row("ours:0.01", 0.4, 0.0), row("median", 0.3, 0.05)]
    rows.append(row("none", 1.0, 0.0))
    assert frontier.at_the_same_epochs(rows, rows[2]) == pytest.approx(0.01)
    assert frontier.at_the_same_epochs(rows, rows[3]) is None
    assert "| median | both | 30.0% | 5.00 ± 0.00% | 1.00% | 50% |" in frontier.table(rows)


def test_across_tasks_a_pruner_is_compared_at_its_own_epochs_order_by_order() -> None:
    def several(pruner: str, signal: str, epochs: float, regrets: list[float]) -> dict[str, Any]:
        mean = float(np.mean(regrets))
        made = Score("wine", pruner, signal, epochs, mean, 0.001, 0.5, 0.0, 0.1, regrets)
        return asdict(made)

    rows = [
        several("ours:0.1", "both", 0.4, [0.0, 0.01, 0.0, 0.01]),
        several(f"ours:{SHARE:g}", "both", 0.2, [0.02, 0.03, 0.02, 0.03]),
        several("median", "raw", 0.3, [0.05, 0.06, 0.05, 0.06]),
        several("asha", "raw", 0.205, [0.0, 0.06, 0.0, 0.04]),
    ]
    middle = across.same_epochs(rows[:2], rows[2])
    assert middle is not None
    assert middle == pytest.approx([0.01, 0.02, 0.01, 0.02])
    assert across.same_epochs(rows[:2], {**rows[2], "epochs": 0.5}) is None
    lines = across.by_pruner(rows)
    assert "| median | raw | 30.0% | 5.50% | 1.50% (5.50%) | 1 | 0 | 0 |" in lines
    assert lines[-1].endswith("| 0 | 1 | 0 |")  # asha is level: it wins some and loses some
    assert across.by_task(rows)[-1] == (
        "| wine | 20.0% | 2.50 ± 0.10% | asha, raw | 20.5% | 2.50 ± 0.10% |"
    )


def test_the_curves_of_a_task_are_what_the_replay_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path), "--tasks", "wine", "--schedules", "5"]
    tasks.main(arguments)
    found = read(str(tmp_path / "wine.npz"))
    assert found.lr.shape == found.raw.shape == found.avg.shape == (5, 40)
    assert np.isfinite(found.raw).all()
    assert (found.lr >= 0).all()
    assert "wine.npz  best" in capsys.readouterr().out
    tasks.main(arguments)  # what is there is not trained again
    assert capsys.readouterr().out == ""


def test_a_record_replaces_its_own_table_and_leaves_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("# Study\n\n<!-- one -->\nold\n<!-- /one -->\n\nWhat it shows.\n")
    record.write(tmp_path, "one", ["| new |"], [{"a": 1}], "python -m it")
    record.write(tmp_path, "one", ["| newer |"], [{"a": 1}], "python -m it")
    text = "# Study\n\n<!-- one -->\n| newer |\n<!-- /one -->\n\nWhat it shows.\n"
    assert page.read_text() == text
    assert '"command": "python -m it"' in (tmp_path / "record.json").read_text()


def test_the_default_is_a_setting_of_the_sweep() -> None:
    from tests.benchmarks.replay import DEFAULT

    assert f"ours:{SHARE:g}" in DEFAULT


def test_live_arms_are_compared_seed_by_seed_by_best_and_by_winner() -> None:
    best = {"pruning off": (1.0, 2.0), "pruning on": (1.1, 2.2), "twice the trials": (1.0, 2.0)}
    rows = [
        {"task": "t", "arm": arm, "seed": seed, "epochs": 25 if arm == "pruning on" else 100}
        | {"values": [values[seed], 9.0], "fresh": [2 * values[seed]] * 3}
        for arm, values in best.items()
        for seed in (1, 0)
    ]
    row = live.pruning_table(rows, ["t"])[3]
    assert row == "| t | pruning on | 1.6500 ± 0.5500 | +10.0 ± 0.0% | 3.3000 ± 1.1000 | " + (
        "+10.0 ± 0.0% | 25 ± 0% | 2 |"
    )


def test_samplers_are_compared_with_ours_seed_by_seed() -> None:
    best = {"trace": (1.0, 2.0), "tpe (group)": (1.1, 2.6)}
    rows = [
        {"task": "t", "arm": arm, "seed": seed, "epochs": 30 + seed, "values": [9.0, values[seed]]}
        for arm, values in best.items()
        for seed in (1, 0)
    ]
    assert live.samplers_table(rows, ["t"])[2:] == [
        "| t | trace | 1.5000 ± 0.5000 |  | 30 ± 0 | 2 |",
        "| t | tpe (group) | 1.8500 ± 0.7500 | +20.00 ± 10.00% | 30 ± 0 | 2 |",
    ]


def test_winners_are_trained_again_on_seeds_that_no_study_has_seen() -> None:
    task = replace(live.make_task("digits:2", Path()), batch_size=400)
    schedule = {"family": "ConstantLR", "lr": 0.1, "epochs": 2}
    hot = {**schedule, "lr": 1e6}
    rows: list[dict[str, Any]] = [
        {"task": "digits:2", "arm": arm, "seed": 0, "winner": Schedule(**winner).to_dict()}
        for arm, winner in (("one", schedule), ("two", schedule), ("hot", hot))
    ]
    live.train_winners(rows, {"digits:2": task})
    one, two, diverged = (row["fresh"] for row in rows)
    assert one == two
    assert len(set(one)) == live.FRESH
    assert max(one) < live.GUESSING
    assert diverged == [live.GUESSING] * live.FRESH
    with pytest.raises(SystemExit, match="unknown task 'digts'"):
        live.make_task("digts", Path())


def test_a_study_is_compared_after_as_many_trials_and_as_many_epochs() -> None:
    full = {"arm": "none", "values": [2.0, 1.0], "spent": [10, 10], "epochs": 20}
    pruned = {"arm": "asha", "values": [3.0, 1.5, 0.5, 0.4], "spent": [5, 3, 2, 10], "epochs": 20}
    rows = [{"task": "t", "seed": 0, **row} for row in (full, pruned)]
    assert live.compared(rows) == [
        dict(zip(FIGURES, ("t", "none", 0, 0.0, 1.0, math.inf, 1.0), strict=True)),
        dict(zip(FIGURES, ("t", "asha", 0, 0.5, 0.4, 2.0, -0.5), strict=True)),
    ]
