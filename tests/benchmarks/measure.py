"""What a process costs, and on what machine."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Cost:
    """What one process cost and found.

    Args:
        cpu: CPU seconds, children included.
        wall: Wall seconds.
        memory: Largest resident set of one process, MiB.
        epochs: Epochs trained, over all trials.
        best: Lowest validation loss of a trial that ran to its end.
        history: (wall second, lowest loss until then) of each improvement.
        trials: Trials finished.
    """

    cpu: float
    wall: float
    memory: float
    epochs: int = 0
    best: float = float("nan")
    history: list[tuple[float, float]] = field(default_factory=list)
    trials: int = 0

    @property
    def cpu_per_epoch(self) -> float:
        """CPU seconds per trained epoch."""
        return self.cpu / max(1, self.epochs)

    def reach(self, target: float) -> float:
        """Wall seconds until a loss of ``target``; infinite if never."""
        return next((wall for wall, loss in self.history if loss <= target), float("inf"))


def spawn(command: Sequence[str], folder: Path) -> tuple[Cost, str]:
    """Run a command to its end; its cost and what it wrote.

    Raises:
        RuntimeError: It failed.
    """
    with (folder / "out.txt").open("w+") as out, (folder / "err.txt").open("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=os.environ)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{err.read()[-3000:]}")
        scale = 1 if sys.platform == "darwin" else 1024
        cost = Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * scale / 2**20)
        return cost, out.read()


def spread(values: Sequence[float]) -> str:
    """``12.3 (11.9 to 13.0)``, or the only one."""
    middle = statistics.median(values)
    if len(values) == 1:
        return f"{middle:.3g}"
    return f"{middle:.3g} ({min(values):.3g} to {max(values):.3g})"


def machine() -> dict[str, Any]:
    """Hardware and versions."""
    import optuna
    import torch

    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "cuda": cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "optuna": optuna.__version__,
        "system": platform.platform(),
        "date": time.strftime("%Y-%m-%d"),
    }
