"""Batches, weight average, optimizers and devices: the parts of the training loop."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, Dataset, DistributedSampler, RandomSampler, Subset

from lrsearch.config import make
from lrsearch.errors import LrsearchError, UsageError
from lrsearch.schedules import Schedule
from lrsearch.search.beginning import clipped, dropped, uncompiled
from lrsearch.search.plan import baselines_of, make_plan
from lrsearch.search.runners import make_runner
from lrsearch.tasks import Augment, Normalize, Split, Task, load_task
from lrsearch.tasks.batch import EVALUATION_BATCHES, to_device
from lrsearch.tasks.models import convnet, mlp
from lrsearch.tasks.optimizers import (
    FUSED,
    build_optimizer,
    check_gradients,
    optimizer_names,
    resolve_optimizer,
    usual_lr,
    usual_range,
    without_compiler,
)
from lrsearch.training import device as devices
from lrsearch.training.averaging import WeightAverage, horizon
from lrsearch.training.batches import (
    LoaderBatches,
    SplitBatches,
    crop_and_flip,
    epoch_plan,
    evaluation_batches,
)
from lrsearch.training.ensemble import EnsembleRunner
from lrsearch.training.evaluation import evaluate
from lrsearch.training.loop import SingleRunner
from lrsearch.training.products import as_torch, multiplier, product

CPU = torch.device("cpu")


# plans and batches


def test_a_plan_is_a_pure_function_of_seed_and_epoch() -> None:
    augment = Augment(pad=2)
    torch.manual_seed(1)
    first = epoch_plan(3, 5, 100, augment)
    torch.manual_seed(2)
    again = epoch_plan(3, 5, 100, augment)
    assert first.dx is not None
    assert first.dy is not None
    assert first.flip is not None
    for name in ("perm", "dx", "dy", "flip"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert sorted(first.perm.tolist()) == list(range(100))
    assert set(first.dx.tolist()) == set(first.dy.tolist()) == set(range(5))
    assert 25 < int(first.flip.sum()) < 75
    assert not torch.equal(first.perm, epoch_plan(3, 6, 100).perm)
    assert not torch.equal(first.perm, epoch_plan(4, 5, 100).perm)
    with torch.device("meta"):  # as scripts do with "cuda"
        elsewhere = epoch_plan(3, 5, 100, augment)
    assert torch.equal(elsewhere.perm, first.perm)
    bare = epoch_plan(0, 0, 10)
    assert (bare.dx, bare.dy, bare.flip) == (None, None, None)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("pad", "flip"), [(4, True), (0, True), (3, False)])
def test_crop_and_flip_is_what_torchvision_does_to_each_image(
    channels: int, last: bool, pad: int, flip: bool
) -> None:
    from torchvision.transforms.functional import crop, hflip
    from torchvision.transforms.functional import pad as framed

    x = torch.randint(0, 256, (20, channels, 9, 7), dtype=torch.uint8)
    plan = epoch_plan(0, 0, 20, Augment(pad, flip))
    want = []
    for i, image in enumerate(x):
        if plan.dx is not None and plan.dy is not None:
            image = crop(framed(image, [pad]), int(plan.dy[i]), int(plan.dx[i]), 9, 7)
        if plan.flip is not None and plan.flip[i]:
            image = hflip(image)
        want.append(image)
    kind = torch.channels_last if last else torch.contiguous_format
    source = x.contiguous(memory_format=kind)
    kept = source.clone()
    got = crop_and_flip(source, plan.dx, plan.dy, plan.flip, pad)
    assert torch.equal(got, torch.stack(want))
    assert torch.equal(source, kept)
    assert got.is_contiguous(memory_format=kind)


def batches_of(n: int, batch_size: int, **more: Any) -> SplitBatches:
    x = torch.arange(n * 192).remainder(251).to(torch.uint8).view(n, 3, 8, 8)
    split = Split(x, torch.arange(n))
    return SplitBatches(split, batch_size=batch_size, seed=0, device=CPU, **more)


@pytest.mark.parametrize("augment", [None, Augment(2)])
def test_an_epoch_gives_full_batches_of_each_sample_at_most_once(augment: Augment | None) -> None:
    batches = batches_of(50, 8, augment=augment, transform=Normalize((0.5,) * 3, (0.5,) * 3))
    seen = list(batches.epoch(2))
    assert [len(y) for _, y in seen] == [8] * 6
    labels = torch.cat([y for _, y in seen]).tolist()
    assert labels == epoch_plan(0, 2, 50).perm[:48].tolist()
    assert seen[0][0].dtype == torch.float32
    if augment is None:  # the label is the number of the image
        raw = batches_of(50, 8).x
        want = (raw[labels[:8]].float() / 255 - 0.5) / 0.5
        assert torch.allclose(seen[0][0], want, atol=1e-6)


@pytest.mark.parametrize("augment", [None, Augment(2)])
def test_a_smaller_last_batch_is_kept_where_that_was_asked_for(augment: Augment | None) -> None:
    every = batches_of(50, 8, augment=augment, drop_last=False)
    assert every.steps == 7
    seen = list(every.epoch(2))
    assert [len(y) for _, y in seen] == [8] * 6 + [2]
    assert torch.cat([y for _, y in seen]).tolist() == epoch_plan(0, 2, 50).perm.tolist()
    full = batches_of(50, 8, augment=augment).epoch(2)
    assert all(torch.equal(x, x2) for (x, _), (x2, _) in zip(full, seen, strict=False))


def test_large_inputs_come_in_chunks_with_the_same_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    normalize = Normalize((0.5,) * 3, (0.2,) * 3)
    both: dict[str, Any] = {"augment": Augment(2), "transform": normalize, "drop_last": False}
    whole = list(batches_of(50, 8, **both).epoch(1))
    monkeypatch.setattr("lrsearch.training.batches.CHUNK_ELEMENTS", 8 * 192 * 2)
    monkeypatch.setattr("lrsearch.training.batches.READY_ELEMENTS", 0)
    parts = batches_of(50, 8, **both)
    assert parts.steps_per_chunk == 2
    for (x, y), (x2, y2) in zip(whole, parts.epoch(1), strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_fewer_samples_than_a_batch_make_one_batch() -> None:
    batches = batches_of(5, 64)
    assert batches.steps == 1
    assert [len(y) for _, y in batches.epoch(0)] == [5]


class Numbers(Dataset[Tensor]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.tensor([index + torch.rand(())]), torch.tensor(index)


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": True},
        {"shuffle": True, "generator": torch.Generator()},
        {"sampler": RandomSampler(Numbers(), generator=torch.Generator())},
        {"sampler": DistributedSampler(Numbers(), num_replicas=1, rank=0)},
    ],
    ids=["shuffle", "generator", "sampler", "set_epoch"],
)
def test_a_loader_gives_the_same_batches_in_the_same_epoch(options: dict[str, Any]) -> None:
    loader = DataLoader(Numbers(), batch_size=4, **options)
    batches = LoaderBatches(loader, steps=3, seed=7, device=CPU, transform=lambda x: x * 2)

    def epoch(number: int) -> list[tuple[Tensor, Tensor]]:
        with devices.random_seed(CPU, number):
            return list(batches.epoch(number))

    first, other, again = epoch(0), epoch(1), epoch(0)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a[1], b[1]) for a, b in zip(first, other, strict=True))
    assert torch.all(first[0][0].squeeze() / 2 - first[0][1] < 1)


class Noisy(Dataset[Tensor]):
    """Draws from a generator of its own, one of its transform, or one of a part of it."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if isinstance(self.generator, torch.Generator):
            return torch.rand((), generator=self.generator), index
        return torch.tensor(self.generator.uniform(0, 1)), index


class Jitter:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(5)

    def uniform(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)


class Jittered(Noisy):
    def __init__(self) -> None:
        super().__init__(Jitter())
        self.transform = self.generator


@pytest.mark.parametrize(
    "data",
    [
        Noisy(torch.Generator()),
        Noisy(np.random.default_rng(5)),
        Noisy(np.random.Generator(np.random.MT19937(5))),
        Noisy(np.random.RandomState(5)),
        Noisy(random.Random(5)),
        Subset(Noisy(np.random.default_rng(5)), range(12)),
        Jittered(),
    ],
    ids=["torch", "numpy", "twister", "numpy of old", "python", "part", "transform"],
)
def test_a_data_set_draws_the_same_from_its_own_generator_in_the_same_epoch(data: Any) -> None:
    loader = DataLoader(data, batch_size=4)
    batches = LoaderBatches(loader, steps=3, seed=7, device=CPU, transform=None)
    first, other, again = (torch.cat([x for x, _ in batches.epoch(n)]) for n in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_validation_goes_through_all_samples_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split(torch.arange(20.0).view(10, 2), torch.arange(10))
    monkeypatch.setattr("lrsearch.tasks.batch.EVALUATION_ELEMENTS", 6)
    task = Task("t", lambda: nn.Linear(2, 1), split, split, batch_size=2)
    batches = evaluation_batches(replace(task, transform=lambda x: x + 1), split, CPU)
    for _ in range(2):
        parts = list(batches())
        assert [len(y) for _, y in parts] == [3, 3, 3, 1]
        assert torch.equal(torch.cat([x for x, _ in parts]), split.x + 1)
        assert torch.equal(torch.cat([y for _, y in parts]), split.y)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_validation_batches_follow_from_what_training_bears(device: str) -> None:
    """A sample of two numbers may have outputs of millions: its inputs alone tell too little."""
    split = Split(torch.zeros(1000, 2), torch.zeros(1000))
    task = Task("t", lambda: nn.Linear(2, 1), split, split, batch_size=5)
    batches = evaluation_batches(task, split, torch.device(device))
    assert {len(y) for _, y in batches()} == {5 * EVALUATION_BATCHES, 1000 % 80}


class Wide(nn.Linear):
    """Gives two million numbers for a sample, as a language model does."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(x).expand(-1, 1 << 21)}


@pytest.mark.parametrize(("trials", "size"), [(1, 8), (2, 5)])
def test_validation_batches_are_small_where_outputs_are_large(trials: int, size: int) -> None:
    split = Split(torch.zeros(40, 2), torch.zeros(40))
    task = Task("t", lambda: Wide(2, 1), split, split, batch_size=5)
    parts = list(evaluation_batches(task, split, CPU, trials)())
    assert {len(y) for _, y in parts} == {size}


def test_what_moves_by_itself_is_moved_by_its_own_rule() -> None:
    packed = pack_sequence([torch.ones(3), torch.ones(2)])
    moved = to_device({"x": packed}, torch.device("meta"))["x"]
    assert moved.data.is_meta
    assert moved.batch_sizes.device == CPU  # as torch demands


def test_tensors_inside_containers_are_moved() -> None:
    moved = to_device({"a": [torch.zeros(1)], "b": (torch.zeros(2), "text")}, torch.device("meta"))
    assert moved["a"][0].is_meta
    assert moved["b"][0].is_meta
    assert moved["b"][1] == "text"


# the average


def test_the_average_follows_the_formula_with_buffers_of_batch_norm() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = WeightAverage(model, steps_per_epoch=4)
    want = {name: tensor.double().clone() for name, tensor in model.state_dict().items()}
    for step in range(1, 60):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(8, 2) * 3 + 1)
        average.update(step)
        h = min(max(0.2 * step, 1), 8)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                want[name] += (tensor.double() - want[name]) / h
    got = average.current().state_dict()
    assert int(got["1.num_batches_tracked"]) == 59
    for name, tensor in got.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor.double(), want[name], rtol=1e-4, atol=1e-5), name
    assert not average.current().training
    assert not any(p.requires_grad for p in average.current().parameters())
    assert [horizon(t, 4) for t in (1, 5, 20, 1000)] == [1, 1, 4, 8]


def test_the_average_leaves_a_part_that_it_shares_with_the_model_as_it_is() -> None:
    fixed = nn.Linear(2, 2)
    models = [nn.Sequential(fixed, nn.Linear(2, 1)) for _ in range(2)]
    average = WeightAverage(models[0], 1, models[1])
    average.update(1)
    assert [p.requires_grad for p in models[0].parameters()] == [True] * 4
    assert [p.requires_grad for p in average.current().parameters()] == [True] * 2 + [False] * 2


def test_a_mask_of_infinities_is_the_same_in_the_average() -> None:
    mask = torch.tensor([0.0, -torch.inf])
    for shared in (False, True):
        models = [nn.Linear(2, 1) for _ in range(2)]
        for model in models:
            model.register_buffer("mask", mask if shared else mask.clone())
        average = WeightAverage(models[0], 1, models[1])
        for step in (1, 2):
            average.update(step)
            torch.testing.assert_close(average.current().mask, mask)
        torch.testing.assert_close(models[0].mask, torch.tensor([0.0, -torch.inf]))


def test_the_average_survives_a_model_that_replaces_its_buffer() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.register_buffer("seen", torch.zeros(1))

    model = Counter()
    average = WeightAverage(model, 1)
    model.seen = torch.ones(1)
    average.refresh()
    average.update(1)
    assert average.current().state_dict()["seen"].item() == 1
    average = WeightAverage(model, 1)
    model.seen.resize_(3).fill_(2)  # as observers of quantization do at their first batch
    average.update(1)
    assert average.current().state_dict()["seen"].tolist() == [2, 2, 2]


def test_a_model_that_grows_in_mid_training_is_told_so() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    average = WeightAverage(model, 1)
    model.append(nn.Linear(2, 2))
    with pytest.raises(LrsearchError, match="make all of them in __init__"):
        average.update(1)


class Replaces(nn.Module):
    """Puts new tensors in place of its own at every step, as codebooks of VQ-VAE do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.scale = self.scale + 0.1
        out: Tensor = self.linear(x) / self.scale
        return out


class Complex(nn.Module):
    """Has a complex parameter, and a sparse buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3, dtype=torch.complex64))
        self.register_buffer("graph", torch.eye(6).to_sparse())

    def forward(self, x: Tensor) -> Tensor:
        return ((x @ self.graph).to(torch.complex64) @ self.weight).abs()


@pytest.mark.parametrize("kind", [Replaces, Complex])
def test_the_average_follows_all_that_is_trained(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = kind(), torch.randn(8, 6)
    average, optimizer = WeightAverage(model, 5), torch.optim.SGD(model.parameters(), lr=0.1)
    want = [t.detach().clone() for t in [*model.parameters(), *model.buffers()]]
    for step in range(1, 11):
        model(x).mean().backward()
        optimizer.step()
        average.update(step)
        for mine, theirs in zip(want, [*model.parameters(), *model.buffers()], strict=True):
            if not mine.is_sparse:
                mine.lerp_(theirs.detach(), 1 / horizon(step, 5))
    found = average.current()
    torch.testing.assert_close([*found.parameters(), *found.buffers()], want)


# optimizers


class Rateless(torch.optim.Optimizer):
    """Calls its rate something else."""

    def __init__(self, params: Any, step_size: float = 0.1) -> None:
        super().__init__(params, {"step_size": step_size})


class Matrices(torch.optim.SGD):
    """Takes matrices alone, as Muon does."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr, momentum=0.9)
        if any(p.dim() != 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("only matrices")


class Both(torch.optim.Optimizer):
    """One optimizer for matrices, and one for the rest, both inside."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})
        given = [p for group in self.param_groups for p in group["params"]]
        rest = [p for p in given if p.dim() != 2]
        self.inner = Matrices([p for p in given if p.dim() == 2], lr), torch.optim.Adam(rest, lr)

    def step(self, closure: Any = None) -> None:
        for inner in self.inner:
            inner.param_groups[0]["lr"] = self.param_groups[0]["lr"]
            inner.step()


class BothSaved(Both):
    def state_dict(self) -> dict[str, Any]:
        return {"own": super().state_dict(), "inner": [each.state_dict() for each in self.inner]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict["own"])
        for each, state in zip(self.inner, state_dict["inner"], strict=True):
            each.load_state_dict(state)


class OwnRate(BothSaved):
    """Whose inner optimizers are not told of a schedule."""

    def step(self, closure: Any = None) -> None:
        for inner in self.inner:
            inner.step()


class Slow(torch.optim.Optimizer):
    """Has its groups from one inside, which loading a state parts from it."""

    def __init__(self, params: Any, lr: float) -> None:
        self.inner = torch.optim.SGD(params, lr, momentum=0.9)
        super().__init__(self.inner.param_groups, {"lr": lr})
        self.param_groups = self.inner.param_groups

    def step(self, closure: Any = None) -> None:
        self.inner.step()


class Wrapper(torch.optim.SGD):
    """Has no state of torch's."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr)
        del self._optimizer_state_dict_pre_hooks


class TwoSteps(torch.optim.SGD):
    """Wants to be called otherwise, as SAM does."""

    def step(self, closure: Any = None) -> None:
        raise NotImplementedError("call first_step and second_step")


HERE = "tests.test_training_parts"


@pytest.mark.parametrize("kind", [Matrices, BothSaved])
def test_an_own_optimizer_may_take_matrices_alone_or_have_others_inside(kind: type) -> None:
    name = f"{HERE}:{kind.__name__}"
    assert resolve_optimizer(name, {}) == (name, {})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            Both,
            "goes on otherwise when its state is saved and loaded, .*: let state_dict and load",
        ),
        (Slow, "goes on otherwise when its state is saved and loaded"),
        (
            OwnRate,
            r"steps as far at another rate: let its step use group\['lr'\] of its param_gro",
        ),
        (Wrapper, "fails when its state is saved and loaded, as after an interruption: Attribute"),
        (
            TwoSteps,
            r"fails when it steps: NotImplementedError: call first_step .* \(test_training_",
        ),
    ],
)
def test_an_own_optimizer_that_would_train_wrongly_is_told_what_to_mend(
    kind: type, message: str
) -> None:
    with pytest.raises(UsageError, match=f"optimizer {HERE}:{kind.__name__} {message}"):
        resolve_optimizer(f"{HERE}:{kind.__name__}", {})


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer_of_torch_can_be_built_and_takes_a_step(name: str) -> None:
    exact, args = resolve_optimizer(name.lower(), {})
    assert exact == name
    sparse = name == "SparseAdam"
    model: Any = nn.Embedding(3, 2, sparse=True) if sparse else nn.Linear(3, 2, bias=False)
    optimizer = build_optimizer(exact, args, model, lr=0.01)
    before = model.weight.detach().clone()
    model(torch.ones(1, 3, dtype=torch.long if sparse else None)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.weight)
    assert bool(optimizer.defaults.get("fused")) == (name in FUSED)


@pytest.mark.parametrize(
    ("name", "args", "result"),
    [
        ("sgd", {}, ("SGD", {"momentum": 0.9, "nesterov": True})),
        ("SGD", {"momentum": 0}, ("SGD", {"momentum": 0})),
        (
            "SGD",
            {"momentum": 0.5, "nesterov": False},
            ("SGD", {"momentum": 0.5, "nesterov": False}),
        ),
        ("SGD", {"dampening": 0.1}, ("SGD", {"momentum": 0.9, "dampening": 0.1})),
        ("ADAMW", {"betas": [0.9, 0.95]}, ("AdamW", {"betas": (0.9, 0.95)})),
        ("adam", {"betas": [0, 0.99]}, ("Adam", {"betas": (0.0, 0.99)})),
        (
            "adam",
            {"betas": (torch.tensor(0.5), torch.tensor([0.75])), "eps": torch.tensor(0.125)},
            ("Adam", {"betas": (0.5, 0.75), "eps": 0.125}),
        ),
        ("torch.optim:Adam", {"eps": 1e-6}, ("torch.optim:Adam", {"eps": 1e-6})),
        (
            "adamw",
            {"weight_decay": np.float32(0.5), "betas": (np.float64(0.5), 0.75)},
            ("AdamW", {"weight_decay": 0.5, "betas": (0.5, 0.75)}),
        ),
        ("sgd", {"nesterov": np.bool_(False)}, ("SGD", {"momentum": 0.9, "nesterov": False})),
        (
            "torch.optim:Adam",
            {"eps": torch.tensor(0.125)},
            ("torch.optim:Adam", {"eps": 0.125}),
        ),
    ],
)
def test_names_and_arguments_are_completed(
    name: str, args: dict[str, Any], result: tuple[str, dict[str, Any]]
) -> None:
    assert resolve_optimizer(name, args) == result


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("adm", {}, "unknown optimizer 'adm' — did you mean Adam"),
        ("LBFGS", {}, "LBFGS cannot be used: it calls a closure"),
        ("rprop", {}, "Rprop cannot be used: its first step alone has the rate"),
        ("adamw", {"beta": 1}, "AdamW has no argument 'beta' — did you mean betas"),
        ("adam", {"maximize": True}, "argument maximize would raise the loss; leave it out"),
        ("sgd", {"lr": 0.1}, "lr is what is searched; give --lr LOW,HIGH"),
        ("sgd", {"params": []}, "SGD has no argument 'params'"),
        ("sgd", {"momentum": -1}, "SGD refuses its arguments: Invalid momentum value: -1"),
        ("adam", {"betas": "big"}, "Adam betas must be 2 numbers such as 0.9, 0.999, got 'big'"),
        ("sgd", {"momentum": 0, "nesterov": True}, "Nesterov momentum requires"),
        ("sgd", {"nesterov": 0}, "optimizer SGD nesterov must be true or false, got 0"),
        ("adam", {"amsgrad": None}, "optimizer Adam amsgrad must be true or false, got None"),
        ("sgd", {"momentum": True}, "SGD momentum must be a finite number, got True"),
        ("adam", {"eps": "small"}, "optimizer Adam eps must be a finite number, got 'small'"),
        ("adamw", {"weight_decay": float("nan")}, "must be a finite number, got nan"),
        ("adam", {"betas": [0.9, 0.99, 1]}, "betas must be 2 numbers such as 0.9, 0.999, got"),
        ("adam", {"betas": [0.9, "x"]}, "Adam betas must be 2 numbers such as 0.9, 0.999, got"),
        ("adafactor", {"eps": [1, None]}, "eps must be 2 numbers such as null, 0.001, got"),
        ("adam", {"capturable": True}, "Adam refuses its arguments: If capturable=True"),
        ("nowhere:Optimizer", {}, "optimizer module nowhere cannot be found; run from its folder"),
        ("torch.optim:Adm", {}, "torch.optim has no 'Adm' — did you mean Adam?"),
        (":Adam", {}, "optimizer  is neither a file.py nor a package.module"),
        ("torch:Tensor", {}, "is no subclass of torch.optim.Optimizer"),
        ("torch.optim:LBFGS", {}, "its step needs a closure; keep your own loop and use lrsearch"),
        (
            "torch.optim:SGD",
            {"momentum": nn.Linear},
            "SGD momentum must be a number, a text, or a list or dict of them, which a file can h",
        ),
        ("tests.test_training_parts:Rateless", {}, "Rateless has no argument lr, the rate that"),
    ],
)
def test_what_an_optimizer_cannot_be_is_said(
    name: str, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_optimizer(name, args)


def test_an_optimizer_that_a_loop_must_switch_is_refused(in_tmp: Path) -> None:
    Path("free.py").write_text(
        "import torch\nclass Free(torch.optim.SGD):\n"
        "    def train(self): pass\n    def eval(self): pass\n"
    )
    with pytest.raises(UsageError, match=r"train\(\) and eval\(\) are for a training loop"):
        resolve_optimizer("free.py:Free", {})


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", ["SGD", "Adagrad"])  # those that a message recommends
def test_sparse_gradients_train_as_dense_ones(name: str) -> None:
    trained = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(9, 4, sparse=sparse), nn.Flatten(), nn.Linear(8, 1))
        optimizer = build_optimizer(*resolve_optimizer(name, {}), model, lr=0.01)
        model(torch.tensor([[1, 2], [2, 5]])).sum().backward()
        optimizer.step()
        trained.append([p.detach().clone() for p in model.parameters()])
    torch.testing.assert_close(*trained)


@pytest.mark.parametrize(
    ("optimizer", "model", "message"),
    [
        ("Adam", nn.EmbeddingBag(9, 4, sparse=True), "sparse gradients of EmbeddingBag .Runtime"),
        ("SparseAdam", nn.Linear(3, 2), "dense gradients of Linear .*, SparseAdam sparse ones on"),
        (
            "SparseAdam",
            nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Linear(4, 1)),
            "SparseAdam does not take the dense gradients of Sequential .*; SGD and Adagrad take",
        ),
        ("SGD", nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Linear(4, 1)), None),
        ("SparseAdam", nn.Embedding(9, 4, sparse=True), None),
    ],
)
def test_gradients_that_an_optimizer_does_not_take_are_told_before_it_trains(
    optimizer: str, model: nn.Module, message: str | None
) -> None:
    name, args = resolve_optimizer(optimizer, {})
    with pytest.raises(LrsearchError, match=message) if message else nullcontext():
        check_gradients(name, args, model)


def test_an_optimizer_of_ones_own_may_be_in_a_file(in_tmp: Path) -> None:
    Path("mine.py").write_text("import torch\nclass Mine(torch.optim.SGD):\n    pass\n")
    assert resolve_optimizer("mine.py:Mine", {"momentum": 0.5})[1] == {"momentum": 0.5}
    Path("broken.py").write_text("1 / 0\n")
    with pytest.raises(LrsearchError, match=r"optimizer broken\.py raises when imported: Zero"):
        resolve_optimizer("broken.py:Mine", {})


def test_an_argument_alone_goes_to_the_optimizer_of_the_task() -> None:
    plan = make_plan(make({"task": "digits", "optimizer": {"momentum": 0.5}}))
    assert plan.optimizer == "SGD"
    assert plan.optimizer_args == {"momentum": 0.5, "nesterov": True, "weight_decay": 5e-4}


def test_a_task_whose_momentum_is_taken_away_is_no_longer_nesterov() -> None:
    assert load_task("digits").optimizer_args["nesterov"]
    for given in ({"momentum": 0}, {"dampening": 0.1}):
        plan = make_plan(make({"task": "digits", "optimizer": {"name": "sgd", **given}}))
        usual = {"momentum": 0.9, "weight_decay": 5e-4}
        assert plan.optimizer_args == {**usual, **given}


@pytest.mark.parametrize(
    ("own", "args", "asked", "gets", "told"),
    [
        (
            "SGD",
            {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
            {"name": "adamw"},
            {},
            "the task's arguments are for SGD and left out: momentum 0.5, nesterov, "
            "weight_decay 0.1 (--optimizer-arg KEY=VALUE gives AdamW its own)",
        ),
        (
            "AdamW",
            {"betas": (0.9, 0.95), "weight_decay": 0.1},
            {"name": "sgd", "weight_decay": 0.2},
            {"momentum": 0.9, "nesterov": True, "weight_decay": 0.2},
            "the task's arguments are for AdamW and left out: betas (0.9, 0.95) "
            "(--optimizer-arg KEY=VALUE gives SGD its own)",
        ),
        ("SGD", {"betas": (0.9, 0.95)}, {"name": "adam", "betas": [0.8, 0.9]}, None, ""),
        ("adamw", {"weight_decay": 0.1}, {"name": "AdamW"}, {"weight_decay": 0.1}, ""),
        ("SGD", {"momentum": 0.5}, {"weight_decay": 0.1}, None, ""),
        ("SGD", {}, {"name": "adamw"}, {}, ""),
    ],
)
def test_another_optimizer_gets_no_argument_of_the_tasks_and_says_so(
    own: str,
    args: dict[str, Any],
    asked: dict[str, Any],
    gets: dict[str, Any] | None,
    told: str,
) -> None:
    task = replace(load_task("digits"), optimizer=own, optimizer_args=args)
    plan = make_plan(make({"optimizer": asked}), task)
    assert gets is None or plan.optimizer_args == gets
    assert dropped(plan) == told


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_an_optimizer_that_refuses_the_model_says_so() -> None:
    with pytest.raises(LrsearchError, match="Muon does not take the parameters of Linear"):
        build_optimizer("Muon", {}, nn.Linear(2, 2), lr=0.1)
    with pytest.raises(LrsearchError, match="Muon does not take the parameters of Sequential"):
        make_plan(make({"task": "digits", "optimizer": "muon"}))


# devices


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:9", r"device cuda:9 is not here; this machine has cpu"),
        ("gpu", r"unknown device 'gpu' \(valid: auto, cpu, cuda, cuda:N, mps; here: cpu"),
        ("cuda:x", "unknown device 'cuda:x'"),
    ],
)
def test_a_device_that_is_not_here_is_refused_with_those_that_are(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        devices.resolve(name)


@pytest.mark.parametrize(
    ("here", "chosen"),
    [(["cpu"], "cpu"), (["cpu", "cuda:0", "cuda:1"], "cuda:0"), (["cpu", "mps"], "mps")],
)
def test_auto_takes_the_fastest_kind(
    here: list[str], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "available", lambda: here)
    assert str(devices.resolve("auto")) == chosen
    assert str(devices.resolve(here[-1])) == here[-1]


@pytest.mark.parametrize(
    ("name", "bf16", "sizes", "chosen"),
    [
        ("auto", True, [64, 64, 10], "fp32"),
        ("auto", True, [64, 2000, 2000, 10], "bf16"),
        ("auto", True, None, "bf16"),
        ("auto", False, None, "fp32"),
        ("bf16", False, [64, 10], "bf16"),
        ("fp32", True, None, "fp32"),
    ],
)
def test_precision_auto_asks_device_and_model(
    name: str,
    bf16: bool,
    sizes: list[int] | None,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(devices, "has_bf16", lambda device: bf16)
    model = convnet if sizes is None else (lambda: mlp(sizes))
    task = replace(load_task("digits"), model=model)
    assert devices.resolve_precision(name, CPU, task) == chosen


class Filled(nn.Module):
    """Writes into a tensor of the format of its inputs, which half precision may not have."""

    def __init__(self, by_hand: bool, always: bool) -> None:
        super().__init__()
        self.by_hand, self.always = by_hand, always
        self.conv, self.head = nn.Conv1d(1, 4, 3), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(x.flatten(1)[:, None]).mean(2))
        filled = x.new_zeros(len(x), 10)
        if self.training and not self.always:
            return logits
        if self.by_hand:
            filled[x.flatten(1).mean(1) > 0.2] = logits[x.flatten(1).mean(1) > 0.2]
        return filled if self.by_hand else logits


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("loader", [True, False])
@pytest.mark.parametrize("always", [True, False], ids=["always", "in evaluation"])
def test_precision_auto_leaves_out_what_a_model_does_not_bear(
    by_hand: bool, loader: bool, always: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: True)
    task = replace(load_task("digits"), model=lambda: Filled(by_hand, always))
    assert isinstance(task.train, Split)
    if loader:
        samples = list(zip(task.train.x, task.train.y, strict=True))
        task = replace(task, train=DataLoader(samples, 64))  # type: ignore[arg-type]
    before = torch.get_rng_state(), random.getstate()
    assert devices.resolve_precision("auto", CPU, task) == ("fp32" if by_hand else "bf16")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_precisions_that_cannot_be_are_refused() -> None:
    task = load_task("digits")
    with pytest.raises(UsageError, match="fp16 needs a GPU; on the cpu take bf16 or fp32"):
        devices.resolve_precision("fp16", CPU, task)
    with pytest.raises(UsageError, match="unknown precision 'bf61' — did you mean bf16"):
        devices.resolve_precision("bf61", CPU, task)


def test_the_random_numbers_of_an_epoch_do_not_leak() -> None:
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    with devices.random_seed(CPU, 1):
        first = torch.rand(3)
    with devices.random_seed(CPU, 1):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(want, torch.rand(3))


class Rows(nn.Conv2d):
    """Views its outputs as rows, which takes channels first."""

    def __init__(self) -> None:
        super().__init__(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x)
        return out.view(len(x), -1)[:, :10]


@pytest.mark.parametrize(
    ("model", "kept"), [(convnet, torch.channels_last), (Rows, torch.contiguous_format)]
)
def test_convolutions_get_channels_last_where_the_model_bears_it(
    model: Any, kept: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: True)
    images = Split(torch.randn(40, 3, 32, 32), torch.arange(40) % 10)
    task = Task("t", model, images, images)
    weight = next(p for p in devices.place(task, model(), CPU).parameters() if p.dim() == 4)
    assert weight.is_contiguous(memory_format=kept)
    assert devices.resolve_precision("auto", CPU, task) == "bf16"
    assert devices.memory_format(task, mlp([4, 2]), CPU) == torch.contiguous_format
    settings: Any = {"optimizer": "SGD", "optimizer_args": {}, "seed": 0, "device": CPU}
    runner = SingleRunner(task, **settings)
    runner.add(0, Schedule("ConstantLR", 0.01, 1))
    result = runner.epoch()[0]
    loss, _ = evaluate(task, runner.weights(0), images, device=CPU)
    assert loss == pytest.approx(result.val_loss, rel=1e-5)


def test_the_cpu_has_a_name() -> None:
    assert devices.describe(CPU).startswith("cpu (")
    assert "thread" in devices.describe(CPU)
    assert devices.describe(CPU, "bf16") == f"{devices.describe(CPU)}, bf16"


def test_preparing_twice_changes_nothing() -> None:
    x = torch.randn(300, 300)
    before = x @ x
    devices.prepare(CPU)
    devices.prepare(CPU)
    assert torch.equal(before, x @ x)
    assert np.isfinite(before.numpy()).all()


@pytest.mark.parametrize("name", optimizer_names())
def test_without_the_compiler_an_optimizer_is_torchs(name: str) -> None:
    """Bit for bit, also in what it saves and goes on from."""
    results = []
    for chosen in (getattr(torch.optim, name), without_compiler(getattr(torch.optim, name))):
        torch.manual_seed(0)
        sparse = name == "SparseAdam"
        linear = nn.Linear(5, 3, bias=name != "Muon")
        model: Any = nn.Embedding(5, 3, sparse=True) if sparse else linear
        optimizer = chosen(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            x = torch.randint(5, (7,)) if sparse else torch.randn(7, 5)
            model(x).square().sum().backward()
            optimizer.step()
            again = chosen(model.parameters(), lr=0.3)
            again.load_state_dict(optimizer.state_dict())
            optimizer = again
        assert isinstance(optimizer, getattr(torch.optim, name))
        assert type(optimizer).__name__ == name
        results.append((model.weight.detach(), str(optimizer.state_dict())))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_training_alone_leaves_the_compiler_out() -> None:
    """Importing torch's compiler takes longer than a small study's training."""
    code = """
import sys, torch
from lrsearch.schedules import Schedule
from lrsearch.tasks import load_task
from lrsearch.training.loop import SingleRunner
runner = SingleRunner(load_task("digits"), optimizer="SGD", optimizer_args={"momentum": 0.9},
                      seed=0, device=torch.device("cpu"))
runner.add(0, Schedule("OneCycleLR", 0.1, 5))
runner.epoch()
state = runner.state(0)
runner.remove(0)
runner.add(0, Schedule("OneCycleLR", 0.1, 5), state)
print(runner.epoch()[0].epoch, "torch._dynamo" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "2 False\n"


def test_trying_a_task_leaves_the_compiler_out() -> None:
    code = """
import sys
from contextlib import nullcontext
from dataclasses import replace
from torch import nn
from lrsearch.tasks import load_task
from lrsearch.tasks.check import check
from lrsearch.training.stacked import why_not_fused
task = replace(load_task("digits"), model=lambda: nn.Sequential(nn.Dropout(), nn.Linear(64, 10)))
check(replace(task, param_groups=lambda model: [{"params": model.parameters()}]))
print(why_not_fused(task, "SGD"), "torch._dynamo" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "None False\n"


# products of small matrices


@pytest.mark.parametrize("width", [2, 40])
def test_products_are_torchs(width: int) -> None:
    """Small ones by torch, larger ones by numpy; into a strided place, with shared inputs."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1, 9, width, generator=generator).expand(3, -1, -1)
    b = torch.randn(3, width, width, generator=generator)
    place = torch.full((3, 9, width + 1), 7.0)
    multiply = product(a, b, place[:, :, :-1])
    for factor in (1, 2):
        b.mul_(factor)
        multiply()
        torch.testing.assert_close(place[:, :, :-1], a @ b)
    assert place[:, :, -1].eq(7).all()
    assert multiplier(place, width)[0] is (np.matmul if width == 40 else torch.bmm)


def test_numpy_multiplies_as_torch_does() -> None:
    def threads() -> list[int]:
        found = threadpool_info()
        return [each["num_threads"] for each in found if each["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        assert torch.get_num_threads() not in before
        with as_torch():
            assert set(threads()) == {torch.get_num_threads()}
        assert threads() == before


def full(*args: object, **settings: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


@pytest.mark.parametrize("fuse", [1, 4])
def test_what_does_not_fit_into_memory_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, fuse: int
) -> None:
    monkeypatch.setattr("lrsearch.search.runners.SingleRunner", full)
    monkeypatch.setattr("lrsearch.search.runners.EnsembleRunner", full)
    with pytest.raises(
        LrsearchError, match=r"do not fit into the memory of cpu .*9 GiB.*--train-s"
    ):
        make_runner(make_plan(make({"trials": 4})), fuse)


def test_of_fused_trials_that_do_not_fit_into_memory_half_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also a number that was asked for: the data are not what is too large."""
    real = EnsembleRunner

    def little(task: Any, *, k: int, **settings: Any) -> Any:
        return full() if k > 3 else real(task, k=k, **settings)

    monkeypatch.setattr("lrsearch.search.runners.EnsembleRunner", little)
    notes: list[str] = []
    plan = make_plan(make({"trials": 20, "fuse": 12}))
    assert make_runner(plan, note=notes.append).capacity == 3
    assert len(notes) == 2
    assert notes[0].startswith("12 fused trials do not fit into the memory of cpu ")
    assert notes[0].endswith("Tried to allocate 9 GiB); going on with 6 trials at a time")


def test_what_only_the_weights_of_this_seed_cannot_be_fused_with_is_trained_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = make_plan(make({"trials": 20, "fuse": 4}))
    monkeypatch.setattr("lrsearch.training.stacked.TOLERANCE", -1.0)
    notes: list[str] = []
    assert make_runner(plan, note=notes.append).capacity == 1
    assert notes == [
        "task digits cannot be fused: a stacked step of Sequential differs from a plain one; "
        "going on with 1 trial at a time"
    ]


def test_the_device_is_chosen_before_the_task_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a second GPU what its file puts on "cuda" would be on the first, and never meet."""
    chosen: list[torch.device] = []

    def load(*args: object, **settings: object) -> None:
        raise UsageError(f"loaded on {chosen}")

    monkeypatch.setattr(devices, "available", lambda: ["cpu", "cuda:0", "cuda:1"])
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr("lrsearch.search.plan.load_task", load)
    with pytest.raises(UsageError, match=r"loaded on .*cuda.*1"):
        make_plan(make({"device": "cuda:1"}))


@pytest.mark.parametrize(
    ("asked", "lr", "searched"),
    [
        ({}, 0.1, (1e-3, 2.0)),  # the task's own
        ({"optimizer": {"name": "sgd", "momentum": 0.5}}, 0.1, (1e-3, 2.0)),
        ({"optimizer": {"name": "adamw"}}, 1e-3, (1e-5, 0.1)),
        ({"optimizer": {"name": "Adagrad"}}, 0.01, (1e-4, 1.0)),
        ({"optimizer": {"name": "adamw"}, "lr": (1e-4, 1e-2)}, 1e-3, (1e-4, 1e-2)),
        ({"optimizer": {"name": "adamw"}, "lr": (3e-3, 1e-2)}, 3e-3, (3e-3, 1e-2)),
    ],
)
def test_recipes_run_at_the_usual_rate_of_the_optimizer(
    asked: dict[str, Any], lr: float, searched: tuple[float, float]
) -> None:
    """AdamW at the rate of SGD would make any schedule look good beside it."""
    plan = make_plan(make({"trials": 4, **asked}))
    assert plan.space.lr == pytest.approx(searched)
    rates = [recipe["lr"] for recipe in baselines_of(plan).values()]
    assert rates == pytest.approx([lr] * 4)


def test_compile_that_changes_nothing_is_said() -> None:
    plan = make_plan(make({"trials": 4, "compile": True, "fuse": 4}))
    assert uncompiled(plan) == "not compiled, as trials are fused: torch.compile needs --fuse off"
    assert not uncompiled(make_plan(make({"trials": 4, "compile": True, "fuse": "off"})))
    assert not uncompiled(make_plan(make({"trials": 4, "fuse": 4})))


def test_a_usual_rate_that_is_not_searched_is_said() -> None:
    outside = make_plan(make({"trials": 4, "lr": (0.2, 2.0)}))
    assert clipped(outside) == (
        "baselines: lr 0.2, the end of the range; the usual 0.1 lies outside"
    )
    assert not clipped(make_plan(make({"trials": 4, "lr": (0.2, 2.0), "baselines": False})))
    assert not clipped(make_plan(make({"trials": 4})))


@pytest.mark.parametrize(
    ("given", "lr", "searched"),
    [
        ({}, 0.1, (1e-3, 1.0)),
        ({"optimizer": "Adam"}, 1e-3, (1e-5, 0.1)),
        ({"optimizer": torch.optim.AdamW, "lr": 3e-4}, 3e-4, (3e-6, 3e-2)),
        ({"lr": 0.5}, 0.5, (5e-3, 5.0)),
        ({"lr": 0.5, "lr_range": (0.1, 1.0)}, 0.5, (0.1, 1.0)),
    ],
)
def test_a_task_that_names_no_rate_has_that_of_its_optimizer(
    given: dict[str, Any], lr: float, searched: tuple[float, float]
) -> None:
    data = Split(torch.zeros(8, 2), torch.zeros(8, 1))
    task = Task("t", lambda: torch.nn.Linear(2, 1), data, data, **given)
    assert task.lr == pytest.approx(lr)
    assert task.lr_range == pytest.approx(searched)


def test_groups_without_rates_of_their_own_follow_the_optimizer() -> None:
    data = Split(torch.zeros(8, 2), torch.zeros(8, 1))
    decays = Task(
        "t",
        lambda: torch.nn.Linear(2, 1),
        data,
        data,
        param_groups=lambda model: [
            {"params": [model.weight], "weight_decay": 0.01},
            {"params": [model.bias], "weight_decay": 0.0},
        ],
    )
    asked = {"optimizer": {"name": "adamw"}, "trials": 4}
    assert make_plan(make(asked), decays).task.lr == pytest.approx(1e-3)
    rates = replace(decays, param_groups=lambda model: [{"params": model.parameters(), "lr": 0.1}])
    assert make_plan(make(asked), rates).task.lr == pytest.approx(0.1)


def test_what_is_made_of_sgd_has_its_usual_rate() -> None:
    class Own(torch.optim.SGD):
        """Such as one with a projection after the step."""

    assert usual_lr(Own) == pytest.approx(0.1)
    assert usual_range(Own, 0.1) == pytest.approx((1e-3, 1.0))
