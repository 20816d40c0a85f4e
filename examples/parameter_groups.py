"""Layers with learning rates of their own (parameter groups), under one schedule.

Every group follows the whole curve from its own rate, so the ratios of the rates stay. The largest
rate becomes the peak of the schedule. Two cases: a classifier at a tenth of the rate of its base,
and rates that decay from layer to layer.

    python examples/parameter_groups.py
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

import lrsearch
from lrsearch.tasks import load_task


def base_and_classifier(model: nn.Sequential) -> list[dict[str, object]]:
    """The classifier at 1e-3, its base at 1e-2."""
    return [
        {"params": model[:-1].parameters(), "lr": 1e-2},
        {"params": model[-1].parameters(), "lr": 1e-3},
    ]


def layerwise_decay(layers: Iterable[nn.Module], lr: float, decay: float) -> list[dict]:
    """The last layer at ``lr``, each one before it at ``decay`` times the rate of the next."""
    groups = [{"params": list(layer.parameters())} for layer in layers]
    groups = [group for group in groups if group["params"]]
    return [{**g, "lr": lr * decay**i} for i, g in enumerate(reversed(groups))]


if __name__ == "__main__":
    task = replace(load_task("digits"), name="two-rates", param_groups=base_and_classifier)
    result = lrsearch.search(task, trials=8, epochs=5, schedules="CosineAnnealingLR,StepLR")
    print(result)

    model = task.model()
    optimizer = torch.optim.SGD(layerwise_decay(model, lr=0.1, decay=0.5), momentum=0.9)
    scheduler = result.schedule.build(optimizer, steps_per_epoch=1)
    for epoch in range(5):
        print(f"epoch {epoch}", *(f"{rate:.2e}" for rate in scheduler.get_last_lr()))
        optimizer.step()
        if result.schedule.family != "ReduceLROnPlateau":
            scheduler.step()
