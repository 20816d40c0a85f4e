"""A classifier at 1e-3 and its base at 1e-2, on scikit-learn's digits, under one schedule."""

from dataclasses import replace

from torch import nn

from lrsearch.tasks import Task, load_task


def base_and_classifier(model: nn.Sequential) -> list[dict[str, object]]:
    """The groups of the optimizer: everything but the last layer at 1e-2, that one at 1e-3."""
    return [
        {"params": model[:-1].parameters(), "lr": 1e-2},
        {"params": model[-1].parameters(), "lr": 1e-3},
    ]


def task() -> Task:
    """The digits task with these groups; a schedule's peak is the rate of the base."""
    digits = load_task("digits")
    return replace(digits, name="two-rates", lr=1e-2, param_groups=base_and_classifier)
