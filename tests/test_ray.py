"""``--launcher ray`` on a real cluster of two nodes, disturbed; and what is refused in words."""

from __future__ import annotations

import os
import signal
import socket
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import lrsearch
from lrsearch.cli import main
from lrsearch.config import make
from lrsearch.errors import UsageError
from lrsearch.search import ray_launcher
from lrsearch.search.context import Context
from lrsearch.search.interrupt import Interrupt
from lrsearch.search.plan import make_plan
from lrsearch.search.ray_launcher import lost, make_cluster
from lrsearch.search.workers import Crew
from lrsearch.storage import Storage, open_storage
from tests.crash_runs import (
    arguments,
    check_equal,
    check_handed_back,
    finish,
    finished,
    leftovers,
    pids,
    running,
)
from tests.ray_cluster import ray_cluster
from tests.servers import Postgres, wait_for

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")


def parent(pid: int) -> int:
    """The process that started ``pid``."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return int(stat.rpartition(")")[2].split()[1])


def started(pid: int) -> int:
    """When a process started, in the kernel's ticks."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return int(stat.rpartition(")")[2].split()[19])


def both_workers(storage: Storage) -> list[int]:
    """Process numbers of two workers, as soon as both run a trial."""
    found: list[int] = []

    def look() -> bool:
        found[:] = pids(storage)
        return len(found) == 2

    wait_for(look, 90)
    return found


@needs_ray
def test_a_run_on_two_nodes_interrupted_and_killed_in_every_way_ends_as_an_undisturbed_one(
    tmp_path: Path, postgres: Postgres, undisturbed: dict[str, dict[str, Any]]
) -> None:
    url = postgres.new_database()
    storage = open_storage(url)
    with ray_cluster() as cluster:
        environment = {"RAY_ADDRESS": cluster.address, "LRSEARCH_TEST_PAUSE": "0.1"}

        args = arguments(url, "--launcher", "ray", "--workers", "2")
        with running(tmp_path, *args, **environment) as process:
            wait_for(lambda: finished(storage) >= 2, 90)
            actors = [parent(pid) for pid in both_workers(storage)]
            assert len({parent(actor) for actor in actors}) == 2, "both nodes work"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        assert process.returncode == 130, errors
        check_handed_back(storage, tmp_path, errors)

        with running(tmp_path, *args, **environment) as process:
            on_first_node = min(
                both_workers(storage), key=lambda pid: started(parent(parent(pid)))
            )
            os.kill(on_first_node, signal.SIGKILL)
            cluster.remove_a_node()  # the other worker goes with it
            out, errors = finish(process)
    assert out.startswith("\nBest schedule"), "Ray itself says nothing"
    assert "Ray cluster of 2 nodes, 4 CPUs, 0 GPUs: 2 workers of 1 CPU" in errors
    assert "was killed by SIGKILL (out of memory?); it is replaced" in errors
    assert "was lost with its Ray actor (" in errors
    check_equal(storage, undisturbed)
    assert leftovers(tmp_path) == []
    storage.close()


# what is refused, and how a cluster is shared out


def node(cpus: float, gpus: float = 0.0, host: str = socket.gethostname()) -> dict[str, Any]:
    """A node, as ``ray.nodes()`` describes it."""
    return {"NodeManagerHostname": host, "Resources": {"CPU": cpus, "GPU": gpus}, "Alive": True}


SERVER = "postgresql+psycopg://me:s3cret@db/lrsearch"


@pytest.mark.parametrize(
    ("settings", "nodes", "workers", "gpus", "devices"),
    [
        ({}, [node(2), node(4)], 6, 0.0, ["cpu"]),
        ({"trials": 3}, [node(2), node(4)], 3, 0.0, ["cpu"]),
        ({"workers": 9}, [node(2)], 9, 0.0, ["cpu"]),
        ({}, [node(8, 2), node(8)], 2, 1.0, ["cuda"]),
        ({"gpus_per_worker": 0.25}, [node(8, 2), node(2, 1)], 10, 0.25, ["cuda"]),
        ({"gpus_per_worker": 0}, [node(8, 2)], 8, 0.0, ["cpu"]),
        ({"device": "cpu"}, [node(8, 2)], 8, 0.0, ["cpu"]),
        ({"device": "cuda", "workers": 2}, [node(8)], 2, 1.0, ["cuda"]),
        ({"storage": SERVER}, [node(2), node(2, host="elsewhere")], 4, 0.0, ["cpu"]),
    ],
)
def test_the_workers_fill_the_cluster_unless_their_number_is_given(
    settings: dict[str, Any],
    nodes: list[dict[str, Any]],
    workers: int,
    gpus: float,
    devices: list[str],
) -> None:
    cluster = make_cluster(make({"launcher": "ray", **settings}), nodes)
    assert (cluster.workers, cluster.gpus, cluster.devices) == (workers, gpus, devices)


def test_the_plan_is_made_on_a_machine_without_the_devices_of_the_cluster() -> None:
    config = make({"launcher": "ray", "device": "cuda", "precision": "fp16", "trials": 4})
    planned = make_cluster(config, [node(8, 4)]).planned(config)
    assert (planned.device, planned.precision, planned.workers) == ("cpu", "auto", "4")
    config = make({"launcher": "ray", "precision": "bf16"})
    planned = make_cluster(config, [node(8)]).planned(config)
    assert (planned.device, planned.precision, planned.workers) == ("auto", "bf16", "8")


@pytest.mark.parametrize(
    ("nodes", "settings", "words"),
    [
        (
            [node(2), node(2, host="elsewhere")],
            {},
            "storage sqlite:///lrsearch.db is a file of this machine, and the Ray cluster has "
            "others (elsewhere): give the URL of a server",
        ),
        (
            [node(2)],
            {"device": "cuda", "gpus_per_worker": 0.5},
            "no node of the Ray cluster has 1 CPU and 0.5 GPU for a worker",
        ),
    ],
)
def test_what_does_not_go_with_the_cluster_is_one_line(
    nodes: list[dict[str, Any]], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        make_cluster(make({"launcher": "ray", **settings}), nodes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "address", "code", "words"),
    [
        (
            ["--launcher", "rya"],
            "",
            2,
            "--launcher: 'rya' — did you mean ray?",
        ),
        (["--gpus-per-worker", "0.5"], "", 2, "--gpus-per-worker: goes with launcher ray only"),
        (
            ["--launcher", "ray", "--gpus-per-worker", "1.5"],
            "",
            2,
            "--gpus-per-worker: needs a number from 0 to 1, or a whole one, got '1.5'",
        ),
        (["--launcher", "ray", "--device", "cuda:1"], "", 2, "Ray chooses the GPU"),
        (["--launcher", "ray"], "ray://head:10001", 2, "the Ray client is not supported"),
        (["--launcher", "ray"], "head", 2, "RAY_ADDRESS=head is no HOST:PORT"),
        (["--launcher", "ray"], "127.0.0.2:9", 1, "no Ray cluster answers at 127.0.0.2:9: start"),
        (["--launcher", "ray"], "no.such.host.invalid:9", 1, "no Ray cluster answers at no.such"),
    ],
)
@needs_ray
def test_a_cluster_that_cannot_be_joined_is_one_line(
    arguments: list[str],
    address: str,
    code: int,
    words: str,
    in_tmp: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert main(["run", *arguments]) == code
    out, errors = capsys.readouterr()
    assert out == ""
    assert len(errors.splitlines()) == 1
    assert words in errors
    assert not Path("lrsearch.db").exists()


@needs_ray
def test_workers_on_the_nodes_reach_the_tracker_as_this_machine_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    sent: list[dict[str, str]] = []
    actor = SimpleNamespace(news=SimpleNamespace(remote=lambda: None))

    def remote(order: dict[str, Any]) -> SimpleNamespace:
        sent.append(order["environment"])
        return actor

    host = SimpleNamespace(options=lambda **words: SimpleNamespace(remote=remote))
    monkeypatch.setattr(ray, "remote", lambda cls: host)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    monkeypatch.setenv("OTHER_TOKEN", "of this machine alone")
    ray_launcher.Cluster([], gpus=0, workers=1, asked="auto").start({})
    assert sent[0]["WANDB_MODE"] == "offline"
    assert sent[0]["MLFLOW_TRACKING_TOKEN"] == "secret"
    assert "OTHER_TOKEN" not in sent[0]


def test_without_ray_one_line_says_what_to_install(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_launcher, "find_spec", lambda name: None)
    assert main(["run", "--launcher", "ray"]) == 2
    assert capsys.readouterr().err == (
        "lrsearch: --launcher ray needs Ray, which is not installed: pip install 'lrsearch[ray]'\n"
    )


def test_a_task_of_this_process_cannot_go_to_a_cluster() -> None:
    data = (torch.randn(8, 2), torch.tensor([0, 1] * 4))
    task = {"model": lambda: torch.nn.Linear(2, 2), "train": data, "validation": data}
    with pytest.raises(UsageError, match="launcher ray: a task given as a Python object cannot"):
        lrsearch.search(task, launcher="ray", quiet=True)


def test_how_an_actor_was_lost_is_told_in_a_sentence() -> None:
    error = RuntimeError("The actor died.\n\tactor_id: 1\nIts node has died. Some causes: ...")
    assert lost(error) == "was lost with its Ray actor (Its node has died)"
    assert lost(RuntimeError()) == "was lost with its Ray actor (RuntimeError)"


class Unplaced:
    """A worker that waits for a place in the cluster."""

    placed = False
    killed = False

    def words(self) -> list[dict[str, Any]]:
        return [{"note": "workers wait"}]

    def poll(self) -> int | None:
        return None

    def death(self, code: int) -> str:
        raise AssertionError

    def leave(self) -> None:
        raise AssertionError

    def wait(self, seconds: float) -> None:
        raise AssertionError

    def kill(self) -> None:
        self.killed = True


class Done(Unplaced):
    """A worker that soon finds nothing more to do."""

    placed = True
    asked = 0

    def poll(self) -> int | None:
        self.asked += 1
        return 0 if self.asked > 2 else None

    def leave(self) -> None:
        """Has left."""


def test_workers_without_a_place_do_not_hold_up_the_end_and_say_so_once(in_tmp: Path) -> None:
    children = [Done(), Unplaced(), Unplaced()]
    waiting = iter(children)
    cluster = SimpleNamespace(devices=["cpu"], start=lambda order: next(waiting))
    plan = make_plan(make({"epochs": 4, "train_samples": 100, "workers": 3}))
    notes: list[str] = []
    context = Context(open_storage("sqlite:///a.db"), Interrupt(), notes.append)
    Crew(plan, context, cluster).run()  # type: ignore[arg-type]
    assert [child.killed for child in children] == [False, True, True]
    assert notes == ["workers wait"]
