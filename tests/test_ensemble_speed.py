"""The speed benchmark: what it reads from a study, and what it compares."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import optuna
import pytest

from tests.benchmarks import parts
from tests.benchmarks.arms import Job, compare, in_turn, read_study
from tests.benchmarks.measure import Cost, spawn, spread
from tests.benchmarks.speed import main


def cost(cpu: float, epochs: int, best: float, history: list[tuple[float, float]]) -> Cost:
    """A cost with the same wall seconds as CPU seconds."""
    return Cost(cpu, cpu, 100.0, epochs, best, history, 3)


def test_ratios_are_taken_round_by_round(capsys: pytest.CaptureFixture[str]) -> None:
    us = [cost(2.0, 20, 0.1, [(1.0, 0.3), (2.0, 0.1)]), cost(4.0, 20, 0.2, [(4.0, 0.2)])]
    them = [cost(30.0, 10, 0.3, [(30.0, 0.3)]), cost(20.0, 10, 0.1, [(5.0, 0.2), (20.0, 0.1)])]
    found = compare({"lrsearch": us, "plain": them})["plain"]
    assert found["CPU seconds per trained epoch"] == [30.0, 10.0]
    assert found["CPU seconds of the study"] == [15.0, 5.0]
    assert found["wall to the worse of both bests"] == [30.0, 1.25]
    assert found["best value (above 1: ours is better)"] == [pytest.approx(3.0), 0.5]
    assert "20 (10 to 30)" in capsys.readouterr().out


def test_a_target_that_was_missed_is_infinitely_far() -> None:
    assert cost(1.0, 1, 0.5, [(1.0, 0.5)]).reach(0.4) == float("inf")
    assert cost(1.0, 1, 0.5, [(1.0, 0.5)]).reach(0.5) == 1.0


def test_spread_is_median_and_range() -> None:
    assert spread([3.0, 1.0, 2.0]) == "2 (1 to 3)"


def test_a_study_tells_its_epochs_and_its_best(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'a.db'}"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=storage, study_name="x")

    def objective(trial: optuna.Trial) -> float:
        value = [0.5, 0.7, 0.2, 0.9][trial.number]
        for epoch in range(1, 4 - trial.number % 2):
            trial.report(value, epoch)
        if trial.number == 3:
            raise optuna.TrialPruned
        return value

    study.optimize(objective, n_trials=4)
    found = Cost(1.0, 1.0, 1.0)
    read_study(storage, study.trials[0].datetime_start.timestamp(), found)  # type: ignore[union-attr]
    assert (found.trials, found.epochs, found.best) == (4, 3 + 2 + 3 + 2, 0.2)
    assert [loss for _, loss in found.history] == [0.5, 0.2]
    assert all(wall >= 0 for wall, _ in found.history)


def test_a_process_is_charged_for_its_work(tmp_path: Path) -> None:
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint('done')"
    found, out = spawn([sys.executable, "-c", code], tmp_path)
    assert out == "done\n"
    assert 0.25 < found.cpu < 3
    assert found.memory > 1
    with pytest.raises(RuntimeError, match="oh dear"):
        spawn([sys.executable, "-c", "raise SystemExit('oh dear')"], tmp_path)


def test_arms_run_in_turn(capsys: pytest.CaptureFixture[str]) -> None:
    order: list[tuple[str, int]] = []

    def arm(name: str, job: Job, folder: Path) -> Cost:
        order.append((name, job.seed))
        return cost(1.0, 1, 0.5, [])

    in_turn({"a": partial(arm, "a"), "b": partial(arm, "b")}, Job("digits", 3, seed=5), 2)
    assert order == [("a", 5), ("b", 5), ("a", 6), ("b", 6)]
    assert "round 2/2 b" in capsys.readouterr().out


def test_results_are_written_with_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def arm(job: Job, folder: Path) -> Cost:
        assert "--seed" in job.arguments()
        assert "--epochs" not in job.arguments()
        return cost(1.0, 10, 0.5, [(0.5, 0.5)])

    for name in ("ours", "plain", "ray"):
        monkeypatch.setattr(parts, name, arm)
    target = tmp_path / "out" / "speed.json"
    monkeypatch.setattr(
        sys, "argv", ["speed", "study", "--rounds", "2", "--trials", "3", "-o", str(target)]
    )
    main()
    told = json.loads(target.read_text())
    part = told["study digits"]
    assert part["ratios"]["plain"]["peak memory"] == [1.0, 1.0]
    assert {"cpu", "torch", "optuna", "python", "date"} <= set(part["machine"])
    assert "plain / lrsearch" in capsys.readouterr().out


def test_every_part_with_whole_studies_is_kept_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, int, str, str, int]] = []

    def arm(name: str, times: float, job: Job, folder: Path, *more: str) -> Cost:
        asked.append((name, job.trials, job.fuse, job.workers, job.seed))
        seconds = times * job.trials
        return Cost(seconds, seconds, 100.0, 2 * job.trials, 0.5, [(0.5, 0.5)], job.trials)

    for name, times in (("ours", 0.5), ("plain", 2.0), ("ray", 8.0)):
        monkeypatch.setattr(parts, name, partial(arm, name, times))
    monkeypatch.setattr(parts, "RAY_NEEDS", ())
    target = tmp_path / "speed.json"
    words = "growth slots workers ray --sizes 10 70 --most-plain 10 --counts 2 16 --trials 20"
    for seed in ("0", "1"):
        more = ["--rounds", "1", "--seed", seed, "--add", "-o", str(target)]
        monkeypatch.setattr(sys, "argv", ["speed", *words.split(), *more])
        main()
    sizes = [("ours", 10, "auto"), ("plain", 10, "auto"), ("ours", 70, "auto")]
    assert [each[:3] for each in asked[:3]] == sizes
    assert [each[2:] for each in asked[3:5]] == [("2", "1", 0), ("16", "1", 0)]
    assert [each[3:] for each in asked[5:7]] == [("1", 0), ("2", 0)]
    assert [each[0] for each in asked[7:9]] == ["ours", "ray"]
    assert [each[:4] for each in asked[9:]] == [each[:4] for each in asked[:9]], "again, added"
    told = json.loads(target.read_text())
    assert list(told) == [
        "growth digits",
        "slots digits",
        "workers digits, 20 trials",
        "ray digits",
    ]
    assert [cost["trials"] for cost in told["growth digits"]["runs"]["plain"]] == [10, 10]
    page = (tmp_path / "README.md").read_text()
    assert "(growth.svg)" in page
    drawn = (tmp_path / "growth.svg").read_text()
    assert drawn.count("<circle") == 6
    assert "Ray Tune" not in drawn
    assert "| 10 | 20 (20 to 20) | 5 (5 to 5) | 500 (500 to 500) |" in page
    assert "| 70 | 140 (140 to 140) | 35 (35 to 35) |" in page
    assert "| not run | not run | not run | not run | – |" in page
    assert "| 16 | 2 | 40 (40 to 40) | 10 (10 to 10) |" in page
    assert "n = 2: two are 1 (1 to 1) times one" in page
    assert "Ray Tune / lrsearch, n = 2: CPU per trained epoch 16 (16 to 16)" in page
    assert "round 1/1 ray" in capsys.readouterr().out


def test_growth_may_be_without_the_plain_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ours", lambda job, folder: cost(job.trials, 9, 0.5, []))
    target = str(tmp_path / "speed.json")
    words = ["growth", "--sizes", "3", "--most-plain", "2", "--rounds", "1", "-o", target]
    monkeypatch.setattr(sys, "argv", ["speed", *words])
    main()
    assert "| 3 | 9 | 3 | 1e+03 | 0.5 | not run |" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "growth.svg").read_text().count("<polyline") == 1


def test_ray_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parts, "RAY_NEEDS", ("sys", "no_such_module"))
    monkeypatch.setattr(sys, "argv", ["speed", "ray"])
    with pytest.raises(SystemExit, match="no_such_module is not installed: python -m pip"):
        main()
    assert "study:" not in capsys.readouterr().out
