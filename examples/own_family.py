"""A family of schedules of your own, searched beside torch's; and a schedule drawn by hand.

``register`` makes the family known: it is then searched, drawn, exported and loaded like those of
torch. The end shows a schedule made from (epoch, lr) points.

    python examples/own_family.py
    lrsearch run --task examples/own_family.py:task --schedules Halving,CosineAnnealingLR
"""

from torch.optim.lr_scheduler import LambdaLR, LRScheduler

import lrsearch
from lrsearch.schedules import Arg, Family, Job, Range, epochs_arg, epochs_range, register
from lrsearch.tasks import load_task


class Halve:
    """The rate at step t of a hold, then halved every ``every`` steps (an object, so that its
    values are saved with the scheduler)."""

    def __init__(self, hold: float, every: float) -> None:
        self.hold, self.every = hold, every

    def __call__(self, t: int) -> float:
        return 0.5 ** max(0.0, (t - self.hold) / self.every)


def build(optimizer, args: dict, job: Job) -> LRScheduler:
    return LambdaLR(optimizer, Halve(args["hold"] * job.steps, args["every"]))


register(
    Family(
        "Halving",
        "hold the peak, then halve the rate every so many epochs",
        args={"hold": Arg("number", high=1.0), "every": epochs_arg()},  # checked, also in files
        search=lambda epochs: {"hold": Range(0.0, 0.7), "every": epochs_range(epochs, 0.05, 0.3)},
        build=build,  # gets durations in scheduler steps
    )
)


def task() -> lrsearch.Task:
    return load_task("digits")


if __name__ == "__main__":
    result = lrsearch.search(
        load_task("digits"), name="halving", trials=8, epochs=6, schedules="Halving,StepLR"
    )
    print(result)

    drawn = lrsearch.Schedule.from_points([(0, 0.01), (2, 0.2), (6, 0.0)], epochs=6)
    print(drawn.family, drawn.trace().lr.round(3))
