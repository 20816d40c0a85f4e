"""The dashboard: figures, note and curves are in it, and nobody else's page can reach it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import optuna
import pytest
from optuna.trial import TrialState

from lrsearch.dashboard import Dashboard, _Filler, open_dashboard
from lrsearch.dashboard_study import Pictures, light, picture_id, prepare
from lrsearch.errors import LrsearchError
from lrsearch.measured import EpochResult
from lrsearch.report.figures import lr_vs_val_loss_figure, lr_vs_val_loss_table
from lrsearch.report.tables import load
from lrsearch.storage import Storage, open_storage
from tests.browser import Browser, find_chromium
from tests.storage_worker import record
from tests.synthetic import make_study


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    storage = open_storage(f"sqlite:///{tmp_path_factory.mktemp('dashboard')}/lrsearch.db")
    make_study(80, storage=storage)
    return storage


@pytest.fixture(scope="module")
def served(storage: Storage) -> Iterator[Dashboard]:
    dashboard = open_dashboard(storage, "digits", 0)
    thread = threading.Thread(target=dashboard.run, daemon=True)
    thread.start()
    yield dashboard
    dashboard.server.shutdown()
    thread.join(10)


def test_a_dashboard_that_is_closed_looks_at_its_database_no_more(storage: Storage) -> None:
    before = set(threading.enumerate())
    dashboard = open_dashboard(storage, "digits", 0)
    (filler,) = (t for t in threading.enumerate() if t not in before)
    server = threading.Thread(target=dashboard.run, daemon=True)
    server.start()
    dashboard.server.shutdown()
    filler.join(10)
    assert not filler.is_alive()


def test_the_dashboard_leaves_most_of_scikit_learn_alone(storage: Storage) -> None:
    program = (
        "import sys; from lrsearch.dashboard import open_dashboard\n"
        "from lrsearch.storage import open_storage\n"
        f"open_dashboard(open_storage({storage.url!r}), 'digits', 0)\n"
        "print({'scipy.stats', 'sklearn.ensemble'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"set()\n"


def ask(served: Dashboard, path: str, **headers: str) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{served.server.server_port}{path}",
        headers={k.replace("_", "-"): v for k, v in headers.items()},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        body: bytes = answer.read()
    return body


def test_it_listens_on_this_machine_only(served: Dashboard) -> None:
    assert served.server.server_address[0] == "127.0.0.1"
    assert served.url.endswith("/dashboard/studies/1")


def test_our_figures_and_the_answer_are_in_the_study(served: Dashboard, storage: Storage) -> None:
    study = json.loads(ask(served, "/api/studies/1?after=0"))
    plots = {
        plot["id"]: json.loads(plot["graph_object"]) for plot in study["plotly_graph_objects"]
    }
    assert {"lr-vs-validation-loss", "best-of-each-family", "what-mattered"} <= set(plots)
    assert all(plot["data"] for plot in plots.values())
    within = plots["what-mattered-within-families"]["layout"]
    assert within["title"]["text"] == "within families"  # ends before the plot's buttons
    assert within["yaxis"]["tickfont"]["size"] * -within["yaxis"]["range"][0] <= 300
    assert study["note"]["body"].startswith("## Train with **")
    assert f"`lrsearch confirm digits --storage {storage.label}`" in study["note"]["body"]


def test_each_trial_has_its_curve_as_an_image(served: Dashboard, storage: Storage) -> None:
    table = load(optuna.load_study(study_name="digits", storage=storage))
    for trial in (table.trials[0], table.trials[-1]):
        path = f"/artifacts/1/{trial.trial_id}/{picture_id(trial.trial_id)}"
        picture = ElementTree.fromstring(ask(served, path))
        assert picture.tag.endswith("svg")
        words = " ".join(picture.itertext())
        assert f"#{trial.number} {trial.family}" in words
    study = json.loads(ask(served, "/api/studies/1?after=0"))
    names = [a["filename"] for t in study["trials"] for a in t["artifacts"]]
    assert names == [f"trial-{i}-lr-curve.svg" for i in range(80)]


def test_only_the_curve_of_a_trial_that_has_not_ended_reads_its_study_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/some.db")
    study = make_study(6, storage=storage)
    running = study.ask()
    running.set_user_attr("schedule", study.trials[0].user_attrs["schedule"])
    read: list[int] = []
    table, pictures = load(study), Pictures(storage)
    monkeypatch.setattr(
        "lrsearch.dashboard_study.load", lambda *given: read.append(1) or load(*given)
    )
    pictures.add(table)

    def picture(trial_id: int) -> str:
        return pictures.open_reader(picture_id(trial_id)).read().decode()

    for trial in table.trials[:6]:
        assert f"#{trial.number} {trial.family}" in picture(trial.trial_id)
    assert read == []
    before = picture(running._trial_id)
    result = EpochResult(
        epoch=1, lr=0.1, train_loss=1.0, val_loss=0.5, val_metric=None,
        avg_val_loss=None, avg_val_metric=None, seconds=0.1,
    )  # fmt: skip
    record(storage, running._trial_id, result)
    assert picture(running._trial_id) != before
    assert read == [1, 1]


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Host": ""}]
)
def test_pages_of_other_sites_are_refused(served: Dashboard, headers: dict[str, str]) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        ask(served, "/api/studies", **headers)


def test_a_port_that_is_taken_is_one_clear_line(served: Dashboard, storage: Storage) -> None:
    port = served.server.server_port
    with pytest.raises(LrsearchError, match=f"port {port} cannot be used .* --port"):
        open_dashboard(storage, "digits", port)


def test_filling_a_study_again_changes_nothing_but_the_version_of_the_note(
    storage: Storage,
) -> None:
    def attrs() -> dict[str, Any]:
        found = storage.get_study_system_attrs(1)
        return {k: v for k, v in found.items() if "plot_data" in k}

    study = optuna.load_study(study_name="digits", storage=storage)
    prepare(study, storage)
    before = attrs()
    prepare(study, storage)
    assert attrs() == before


def test_a_study_that_is_deleted_or_cannot_be_read_leaves_the_others_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepared(study: optuna.Study, storage: Storage) -> Any:
        return [][0] if study.study_name == "broken" else prepare(study, storage)

    monkeypatch.setattr("lrsearch.dashboard.prepare", prepared)
    storage = open_storage(f"sqlite:///{tmp_path}/some.db")
    make_study(12, name="deleted", storage=storage)
    most = optuna.create_study(study_name="most", storage=storage, direction="maximize")
    most.set_user_attr("lrsearch", {"config": {}})
    make_study(12, name="broken", storage=storage)
    kept = make_study(12, name="kept", storage=storage)
    filler = _Filler(storage, Pictures(storage))
    filler.fill()
    assert filled(kept, storage)
    told = sorted(capsys.readouterr().err.splitlines())
    assert told[0].startswith("study broken is shown without our figures: IndexError: ")
    assert told[1].startswith("study most is shown without our figures: a study of schedules min")
    optuna.delete_study(study_name="deleted", storage=storage)
    filler.fill()
    assert capsys.readouterr().err == ""


def filled(study: optuna.Study, storage: Storage) -> bool:
    return any("note" in key for key in storage.get_study_system_attrs(study._study_id))


def test_studies_that_begin_later_are_filled_too_where_none_was_named(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/some.db")
    make_study(3, name="first", storage=storage)
    every, one = _Filler(storage, Pictures(storage)), _Filler(storage, Pictures(storage), "first")
    every.fill()
    later = make_study(3, name="later", storage=storage)
    one.fill()
    assert not filled(later, storage)
    every.fill()
    assert filled(later, storage)


def test_a_dashboard_that_is_left_open_reads_no_trials_until_more_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/some.db")
    study = make_study(12, storage=storage)
    filler = _Filler(storage, Pictures(storage))
    filler.fill()
    read: list[str] = []
    load = optuna.load_study
    monkeypatch.setattr(
        "optuna.load_study", lambda **named: read.append(named["study_name"]) or load(**named)
    )
    filler.fill()
    assert read == []
    for _ in range(2):
        study.add_trial(study.trials[0])
    filler.fill()
    assert study.study_name in read


def test_the_last_trials_of_a_study_and_another_of_its_name_are_filled_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/some.db")
    study = make_study(30, storage=storage)
    filled: list[int] = []

    def prepared(study: optuna.Study, storage: Storage) -> Any:
        filled.append(len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))))
        return load(study)

    monkeypatch.setattr("lrsearch.dashboard.prepare", prepared)
    filler = _Filler(storage, Pictures(storage))
    filler.fill()
    running = study.ask()
    study.add_trial(study.trials[0])
    filler.fill()
    assert filled == [30], "it goes on, and a tenth more have not finished"
    study.tell(running, 0.5)
    filler.fill()
    filler.fill()
    assert filled == [30, 32]
    optuna.delete_study(study_name=study.study_name, storage=storage)
    make_study(32, storage=storage)
    filler.fill()
    assert filled == [30, 32, 32]


def test_a_database_that_is_away_for_a_while_does_not_end_the_filling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/some.db")
    study = make_study(3, storage=storage)
    monkeypatch.setattr("lrsearch.dashboard.REFRESH_SECONDS", 0.01)
    filler, look = _Filler(storage, Pictures(storage)), storage.get_all_studies
    away = [LrsearchError("storage cannot be reached")] * 3

    def get_all_studies() -> list[Any]:
        if away:
            raise away.pop()
        filler.closed.set()
        return look()

    monkeypatch.setattr(storage, "get_all_studies", get_all_studies)
    filler.start()
    filler.join(30)
    assert filled(study, storage)
    assert capsys.readouterr().err == (
        "what is shown is not the newest: storage cannot be reached\n"
    )


def test_a_large_study_is_thinned_to_what_the_dashboard_can_hold() -> None:
    figure = lr_vs_val_loss_figure(lr_vs_val_loss_table(load(make_study(4000, epochs=6))))
    thin = light(figure)
    marks = [t for t in thin.data if t.mode == "markers" and t.text is not None]
    assert sum(len(t.x) for t in marks) < 2500
    filled = sum(
        len(t.x) for t in figure.data if t.text is not None and "open" not in str(t.marker.symbol)
    )
    kept = sum(len(t.x) for t in marks if "open" not in str(t.marker.symbol))
    assert kept == filled
    assert sum(len(t.x) for t in figure.data if t.x is not None) > 4000


@pytest.mark.filterwarnings("ignore:Some regimes")  # Optuna's own importance plot says so
@pytest.mark.filterwarnings("ignore:PedAnovaImportanceEvaluator")  # of older dashboards
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium: install chromium")
def test_a_browser_shows_figures_and_note(served: Dashboard, tmp_path: Path) -> None:
    with Browser(1400, 1000) as browser:
        browser.open(served.url)
        browser.wait("document.body.innerText.includes('lr vs validation loss')")
        browser.wait(
            "document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length > 8"
        )
        browser.open(f"{served.url}/note")
        browser.wait("document.body.innerText.includes('Train with')")
        assert browser.errors == []
        assert all("127.0.0.1" in url for url in browser.requests)
