"""Studies of many trials and of many epochs: what it takes to read and to show them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest

from lrsearch.report import csv_files, learning_curves, optuna_figures
from lrsearch.report.report import make_report
from lrsearch.report.tables import load
from lrsearch.schedules import RandomParams, Schedule, Space
from lrsearch.storage import Storage, open_storage
from lrsearch.storage.history import load_history
from tests.synthetic import Fake, fakes, make_study


def _fakes(trials: int, epochs: int) -> list[Fake]:
    """Trials with schedules that the tool can build; a third of them stopped."""
    space, rng = Space(None, epochs, (1e-3, 1.0)), RandomParams(np.random.default_rng(0))
    made = fakes(trials, epochs=epochs, prune=False)
    return [dataclasses.replace(f, schedule=space.suggest(rng).to_dict()) for f in made]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return open_storage(f"sqlite:///{tmp_path_factory.mktemp('large')}/lrsearch.db")


@pytest.fixture(scope="module")
def study(storage: Storage) -> optuna.Study:
    return make_study(name="long", storage=storage, epochs=2000, made=_fakes(20, 2000))


def _peak_bytes(work: Callable[[], object]) -> int:
    """The most that Python and numpy held at a time for ``work``, done once before."""
    work()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_history_is_read_in_little_more_memory_than_it_takes(
    study: optuna.Study, storage: Storage
) -> None:
    rows = len(load_history(storage, study._study_id))
    assert rows > 20_000
    peak = _peak_bytes(lambda: load_history(storage, study._study_id))
    assert peak < 3 * 10 * 8 * rows  # ten columns of eight bytes; as rows, it was 7 * 80


def test_a_page_of_the_families_of_torch_is_made_without_torch(
    storage: Storage, tmp_path: Path
) -> None:
    made = _fakes(40, 5)
    made[0].schedule = Schedule("StepLR", 0.1, 5, {"step_size": 2, "gamma": 0.5}).to_dict()
    made[0].losses[-1] = 1e-3
    make_study(name="short", storage=storage, epochs=5, made=made)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from lrsearch.__main__ import main\n"
        "sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "report", "short", "--storage", storage.label]
    subprocess.run([*command, "-o", "r.html"], check=True, cwd=tmp_path)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'data-plot="overview"' in text
    assert "import StepLR" in text


def test_lines_of_long_trials_have_as_many_points_as_can_be_seen_and_the_same_ends(
    study: optuna.Study,
) -> None:
    table = load(study)
    for whole, drawn in zip(
        learning_curves.learning_curves_of(table, table.complete),
        learning_curves.thinned_curves(table, table.complete),
        strict=True,
    ):
        assert len(whole.epoch) == 2000
        assert 500 <= len(drawn.epoch) <= learning_curves.MOST_POINTS + 2
        assert 500 <= len(drawn.x) == len(drawn.lr) <= learning_curves.MOST_POINTS + 2
        assert (drawn.epoch[0], drawn.epoch[-1]) == (1, 2000)
        assert (drawn.x[-1], drawn.lr[-1]) == (whole.x[-1], whole.lr[-1])
        assert all(drawn.loss[i] == whole.loss[e - 1] for i, e in enumerate(drawn.epoch))
        assert all(drawn.epoch_lr[i] == whole.epoch_lr[e - 1] for i, e in enumerate(drawn.epoch))
    for trace in optuna_figures.epochs_figure(table).data:
        assert 200 <= len(trace.x) <= optuna_figures.MOST_POINTS + 2
        assert trace.x[-1] == 2000


def test_lines_of_trials_of_usual_length_have_all_their_points(storage: Storage) -> None:
    table = load(make_study(name="usual", storage=storage, epochs=300, made=_fakes(20, 300)))
    assert learning_curves.thinned_curves(
        table, table.complete
    ) == learning_curves.learning_curves_of(table, table.complete)
    assert {len(trace.x) for trace in optuna_figures.epochs_figure(table).data} >= {300}


def test_tables_are_written_in_little_more_memory_than_they_take(
    study: optuna.Study, tmp_path: Path
) -> None:
    report = make_report(study)
    peak = _peak_bytes(lambda: csv_files.write_csv(report, tmp_path))
    assert peak < 3.5 * (tmp_path / "history.csv").stat().st_size
