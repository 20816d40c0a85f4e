"""A schedule as an array: the real torch scheduler, stepped on a one-parameter dummy optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lrsearch.errors import UsageError
from lrsearch.schedules.family import get_family

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch.optim import Optimizer

    from lrsearch.schedules.schedule import Schedule

Kind = Literal["sgd", "adam"]


@dataclass(frozen=True)
class Trace:
    """What the optimizer gets at each step.

    Args:
        lr: (steps,) float64; ``lr[t]`` is used by optimizer step ``t``.
        momentum: (steps,) float64, momentum or beta1; None where the optimizer has none.
    """

    lr: npt.NDArray[np.float64]
    momentum: npt.NDArray[np.float64] | None


def trace(schedule: Schedule, steps_per_epoch: int, momentum: float, kind: Kind) -> Trace:
    """The trace of ``schedule``; see :meth:`Schedule.trace`."""
    lazy = LazyTrace(schedule, steps_per_epoch, momentum, kind)
    lr, momenta = lazy.span(0, schedule.epochs * steps_per_epoch)
    return Trace(lr, momenta if kind == "adam" or momentum != 0 else None)


class LazyTrace:
    """A trace that is computed only as far as it is asked for: most trials are stopped early.

    Args:
        schedule: Not one that a loss drives.
        steps_per_epoch: Optimizer steps in an epoch.
        momentum: The optimizer's own momentum, or beta1.
        kind: ``sgd`` (has ``momentum``), ``adam`` (has ``betas``).

    Raises:
        UsageError: ReduceLROnPlateau, which needs the loss.
    """

    def __init__(
        self, schedule: Schedule, steps_per_epoch: int, momentum: float, kind: Kind
    ) -> None:
        import numpy as np

        if get_family(schedule.family).needs_metric:
            raise UsageError(
                f"{schedule.family} has no trace: its rate depends on the loss; train to see it"
            )
        optimizer = dummy(kind, momentum)
        self._scheduler = schedule.build(optimizer, steps_per_epoch)
        optimizer.step()  # torch warns when the scheduler is stepped first
        self._group: dict[str, Any] = optimizer.param_groups[0]
        self._repeat = 1 if schedule.interval == "step" else steps_per_epoch
        self._known = 0  # scheduler steps whose rate and momentum are known
        self._values = np.empty((2, schedule.epochs * steps_per_epoch // self._repeat))

    def span(
        self, first: int, last: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Rate and momentum of the optimizer steps from ``first`` to before ``last``.

        Where the schedule is stepped once an epoch, both are where an epoch begins.
        """
        import numpy as np

        group, repeat = self._group, self._repeat
        begin, end = first // repeat, last // repeat
        for t in range(self._known, end):
            if t:
                self._scheduler.step()
            momentum = group["betas"][0] if "betas" in group else group["momentum"]
            self._values[:, t] = group["lr"], momentum
        self._known = max(self._known, end)
        lr, momenta = self._values[:, begin:end]
        return np.repeat(lr, repeat), np.repeat(momenta, repeat)


def dummy(kind: Kind, momentum: float) -> Optimizer:
    """An optimizer of one parameter without gradient, for schedulers to set the rate of."""
    import torch

    params = [torch.zeros((), requires_grad=True)]
    if kind == "adam":
        adam: Optimizer = without_training(torch.optim.Adam)(
            params, lr=1.0, betas=(float(momentum), 0.999)
        )
        return adam
    if kind == "sgd":
        sgd: Optimizer = without_training(torch.optim.SGD)(params, lr=1.0, momentum=momentum)
        return sgd
    raise UsageError(f"optimizer kind must be sgd or adam, got {kind!r}")


_WITHOUT_TRAINING: dict[Any, Any] = {}


def without_training(optimizer: Any) -> Any:
    """An optimizer class that checks its arguments and holds its rates, but trains nothing.

    torch's own class imports its compiler for the first object: more than a CPU second.
    """
    if optimizer not in _WITHOUT_TRAINING:
        _WITHOUT_TRAINING[optimizer] = type(
            optimizer.__name__, (optimizer,), {"add_param_group": _add_param_group, "step": _step}
        )
    return _WITHOUT_TRAINING[optimizer]


def _add_param_group(self: Optimizer, group: dict[str, Any]) -> None:
    self.param_groups.append({**self.defaults, **group})


def _step(self: Optimizer, closure: None = None) -> None:
    """Nothing to do."""
