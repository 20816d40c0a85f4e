"""``--launcher ray``: the workers are actors on the nodes of a Ray cluster, which places them.

An actor starts the ordinary worker process on its node and passes on what that says; so a worker
there is what it is here, down to Ctrl-C and the last words of one that dies. An actor that is
lost, with its node or alone, is replaced by another (:class:`lrsearch.search.workers.Crew`), and
Ray finds it a place. The nodes need lrsearch, the task's file and its data where this machine has
them; ``ray job submit --working-dir . -- lrsearch run ...`` sends along what is in the folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from lrsearch.config import StudyConfig
from lrsearch.errors import LrsearchError, UsageError, first_line
from lrsearch.search.child import Host, Order, Words
from lrsearch.storage.urls import parse_storage_url, redact, sqlite_file
from lrsearch.training import device as devices

CPUS = 1  # of a worker; its threads
SENT = ("LRSEARCH_", "MLFLOW_", "WANDB_")  # environment variables of these go to the nodes
REACH_SECONDS = 5.0
PLACE_SECONDS = 15.0  # then a line says that a worker waits for a place
Node = Mapping[str, Any]


class RayChild:
    """A worker process on a node of the cluster.

    Args:
        actor: Handle of its :class:`lrsearch.search.child.Host`.
        needs: What it takes from the cluster, in words.

    Attributes:
        placed: Whether it has a place to run; false while the cluster has none to give.
    """

    def __init__(self, actor: Any, needs: str) -> None:
        self.placed = False
        self._actor = actor
        self._needs = needs
        self._began = time.monotonic()
        self._told = False
        self._said: list[Words] = []
        self._code: int | None = None
        self._death = ""
        self._news = actor.news.remote()

    def tell(self, order: Order) -> None:
        """Give it another order, when it is done with the one before."""
        self._actor.tell.remote(order)

    def words(self) -> list[Words]:
        """What it said since the last call."""
        self.poll()
        said, self._said = self._said, []
        return said

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, 1 if its node or actor was lost."""
        import ray

        if self._code is not None:
            return self._code
        if not ray.wait([self._news], timeout=0)[0]:
            self._mention_waiting()
            return None
        try:
            words, self._code, self._death = ray.get(self._news)
        except ray.exceptions.RayError as error:
            self._code, self._death = 1, lost(error)
            return self._code
        self.placed = True
        self._said += words
        if self._code is None:
            self._news = self._actor.news.remote()
        return self._code

    def _mention_waiting(self) -> None:
        if not (self.placed or self._told) and time.monotonic() - self._began > PLACE_SECONDS:
            self._told = True
            note = f"workers wait until the Ray cluster has {self._needs} to spare"
            self._said.append({"note": note})

    def death(self, code: int) -> str:
        """How it ended, in words."""
        return self._death

    def leave(self) -> None:
        """Ask it to save, hand back and leave."""
        if self._code is None and self.placed:
            self._actor.leave.remote()
        else:
            self.kill()

    def wait(self, seconds: float) -> None:
        """Return when it has ended; end it if it has not in time."""
        end = time.monotonic() + seconds
        while self.placed and self.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        """End its actor, and the worker process with it."""
        import ray

        ray.kill(self._actor)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process has joined.

    Attributes:
        nodes: Its nodes that are alive, as ``ray.nodes()`` describes them.
        gpus: GPUs of each worker; 0 without.
        workers: How many.
        asked: The device asked for.
    """

    nodes: Sequence[Node]
    gpus: float
    workers: int
    asked: str

    @property
    def devices(self) -> list[str]:
        """What the workers train on: Ray shows each only the GPUs that are its own."""
        return ["cuda" if self.gpus else "cpu" if self.asked == "auto" else self.asked]

    @property
    def needs(self) -> str:
        """What a worker takes."""
        return f"{CPUS} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")

    def describe(self) -> str:
        """The cluster and the workers, one line."""
        cpus, gpus = (sum(total(node, kind) for node in self.nodes) for kind in ("CPU", "GPU"))
        count = len(self.nodes)
        return (
            f"Ray cluster of {count} node{'s' * (count > 1)}, {cpus:g} CPUs, {gpus:g} GPUs: "
            f"{self.workers} worker{'s' * (self.workers > 1)} of {self.needs}"
        )

    def planned(self, config: StudyConfig) -> StudyConfig:
        """The configuration for the plan of this process, which may have no such device itself."""
        config = dataclasses.replace(config, workers=str(self.workers))
        here = devices.available()
        if config.device == "auto" or config.device in here or f"{config.device}:0" in here:
            return config
        return dataclasses.replace(config, device="cpu", precision="auto")

    def start(self, order: Order) -> RayChild:
        """Start a worker wherever the cluster has a place for it."""
        import ray

        environment = {k: v for k, v in os.environ.items() if k.startswith(SENT)}
        full = {**order, "environment": environment}
        actor = ray.remote(Host).options(
            num_cpus=CPUS, num_gpus=self.gpus, scheduling_strategy="SPREAD", max_restarts=0
        )
        return RayChild(actor.remote(full), self.needs)


@contextlib.contextmanager
def joined(config: StudyConfig) -> Iterator[Cluster | None]:
    """The Ray cluster, where a configuration asks for one: found as Ray finds it.

    Raises:
        UsageError: Ray is not installed; the device or the storage does not go with a cluster.
        LrsearchError: There is no cluster, or it cannot be reached.
    """
    if config.launcher != "ray":
        yield None
        return
    if find_spec("ray") is None:
        raise UsageError(
            "--launcher ray needs Ray, which is not installed: pip install 'lrsearch[ray]'"
        )
    if config.device.startswith("cuda:"):
        raise UsageError(
            f"--device {config.device} with --launcher ray: Ray chooses the GPU of each worker; "
            "give --device cuda"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray would print pages about each lost actor to stdout; we say it in a line.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")
    import ray

    ours = not ray.is_initialized()
    if ours:
        _join()
    try:
        yield make_cluster(config, [node for node in ray.nodes() if node["Alive"]])
    finally:
        if ours:
            ray.shutdown()


def _join() -> None:
    import ray

    address = _address()
    main = threading.current_thread() is threading.main_thread()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False
        )
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        raise LrsearchError(
            f"the Ray cluster at {address} cannot be joined: {first_line(error)}"
        ) from None
    finally:
        for number, handler in handlers.items():  # Ray takes SIGTERM for itself
            signal.signal(number, handler)


def _address() -> str:
    """Where the cluster is, if it answers: Ray itself would try for a quarter of an hour."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    named = os.environ.get("RAY_ADDRESS", "")
    start = "start one with ray start --head, or name one: RAY_ADDRESS=HOST:PORT"
    if "://" in named:
        raise UsageError(
            f"RAY_ADDRESS={named}: the Ray client is not supported; run this on a node of the "
            "cluster, with RAY_ADDRESS=HOST:PORT or none, or send it there with ray job submit"
        )
    try:
        address = str(canonicalize_bootstrap_address_or_die("auto"))
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except ConnectionRefusedError:
        raise LrsearchError(f"no Ray cluster answers at {address}: {start}") from None
    except ConnectionError:
        raise LrsearchError(f"no Ray cluster runs on this machine: {start}") from None
    except ValueError:
        raise UsageError(f"RAY_ADDRESS={named} is no HOST:PORT of a Ray cluster") from None
    except OSError as error:
        reason = error.strerror or error
        raise LrsearchError(f"no Ray cluster answers at {address} ({reason}): {start}") from None
    return address


def make_cluster(config: StudyConfig, nodes: Sequence[Node]) -> Cluster:
    """What a configuration comes to on these nodes.

    Raises:
        UsageError: The storage is a file and a node is another machine; no node has the GPUs.
    """
    others = sorted({n["NodeManagerHostname"] for n in nodes} - {socket.gethostname()})
    if others and sqlite_file(parse_storage_url(config.storage)) is not None:
        raise UsageError(
            f"storage {redact(config.storage)} is a file of this machine, and the Ray cluster has "
            f"others ({', '.join(others[:5])}): give the URL of a server, "
            "--storage postgresql+psycopg://USER:PASSWORD@HOST/DB"
        )
    gpus = config.gpus_per_worker
    if gpus is None:
        some = any(total(node, "GPU") for node in nodes)
        gpus = 1.0 if config.device == "cuda" or (config.device == "auto" and some) else 0.0
    room = capacity(nodes, gpus)
    if not room and config.workers == "auto":
        raise UsageError(
            f"no node of the Ray cluster has {CPUS} CPU"
            + (f" and {gpus:g} GPU" if gpus else "")
            + " for a worker; give another --gpus-per-worker or --device, or --workers N to wait "
            "for a node that has"
        )
    workers = max(1, min(room, config.trials)) if config.workers == "auto" else int(config.workers)
    return Cluster(nodes, gpus, workers, config.device)


def capacity(nodes: Sequence[Node], gpus: float) -> int:
    """How many workers the nodes hold at once.

    Example:
        >>> capacity([{"Resources": {"CPU": 8.0, "GPU": 1.0}}, {"Resources": {"CPU": 8.0}}], 0.25)
        4
    """
    return sum(
        int(min(total(n, "CPU") / CPUS, total(n, "GPU") / gpus if gpus else float("inf")))
        for n in nodes
    )


def total(node: Node, kind: str) -> float:
    """How many CPUs or GPUs a node has."""
    return float(node["Resources"].get(kind, 0.0))


def lost(error: Exception) -> str:
    """How an actor ended, in words: what Ray says, in a sentence."""
    last = ([""] + [line.strip() for line in str(error).splitlines() if line.strip()])[-1]
    sentence = re.split(r"\.\s|\.$", last)[0]
    return f"was lost with its Ray actor ({sentence[:200] or type(error).__name__})"
