"""A Ray cluster of two nodes on this machine, in a process of its own; it ends with its stdin.

It says its address on stdout. ``remove`` on stdin ends the second node as a failure would.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.crash_runs import place_of_sockets

HOST = "127.0.0.2"
"""Only this machine reaches it; for 127.0.0.1 Ray would take the machine's own address."""
CPUS = 2  # of each node


@dataclass
class RayCluster:
    """A running cluster.

    Attributes:
        process: Keeps it.
        address: What ``RAY_ADDRESS`` takes.
    """

    process: subprocess.Popen[str]
    address: str

    def remove_a_node(self) -> None:
        """End the second node, with all that runs there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("remove\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "removed\n"


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """A cluster of two nodes; nothing of it is left afterwards."""
    place = place_of_sockets()
    with tempfile.TemporaryDirectory("", "lrray", place, ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.ray_cluster"],
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        try:
            if not address:
                raise RuntimeError(process.communicate(timeout=60)[1])
            yield RayCluster(process, address)
        finally:
            process.communicate(timeout=60)


def main() -> None:
    """Keep a cluster until stdin ends."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": CPUS, "node_ip_address": HOST, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    second = cluster.add_node(**node)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line == "remove\n":
            cluster.remove_node(second, allow_graceful=False)
            print("removed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
