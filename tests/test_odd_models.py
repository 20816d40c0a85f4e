"""Models, losses and loaders that are not of the usual kind: trained as they would be alone."""

from __future__ import annotations

import math
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal
from torch.nn.utils import prune
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    default_collate,
    get_worker_info,
)

from lrsearch.errors import LrsearchError, UsageError
from lrsearch.measured import EpochResult
from lrsearch.schedules import Schedule
from lrsearch.tasks.batch import as_float, count, joined
from lrsearch.tasks.check import check as check_task
from lrsearch.tasks.custom import as_task
from lrsearch.tasks.optimizers import build_optimizer
from lrsearch.tasks.task import Split, Task, auto_metric
from lrsearch.training.auto import choose
from lrsearch.training.checkpoint import load, save
from lrsearch.training.ensemble import EnsembleRunner
from lrsearch.training.evaluation import evaluate
from lrsearch.training.loop import SingleRunner
from lrsearch.training.lr_range import lr_range_test
from lrsearch.training.stacked import why_not_fused
from tests.test_ensemble import CPU, check, fused, mixed, mlp, vectors


def shared_activation() -> nn.Module:
    act = nn.ReLU()
    return nn.Sequential(nn.Linear(6, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 3))


def shared_block() -> nn.Module:
    block = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    return nn.Sequential(nn.Linear(6, 8), block, block, nn.Linear(8, 3))


def shared_layer() -> nn.Module:
    layer = nn.Linear(8, 8)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), layer, nn.Tanh(), layer, nn.Linear(8, 3))


def tied_weight() -> nn.Module:
    a, b = nn.Linear(6, 6), nn.Linear(6, 6)
    b.weight = a.weight
    return nn.Sequential(a, nn.Tanh(), b, nn.Tanh(), nn.Linear(6, 3))


class Alias(nn.Module):
    """One module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 6)
        self.again = self.body
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.again(torch.tanh(self.body(x)))))
        return out


def pruned() -> nn.Module:
    model = mlp(6, 8, 3)
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


@pytest.mark.parametrize(
    "model", [shared_activation, shared_block, shared_layer, tied_weight, Alias, pruned]
)
def test_models_that_share_or_mask_their_weights_train_as_alone(
    model: Callable[[], nn.Module],
) -> None:
    task = vectors(model)
    assert why_not_fused(task, "SGD") is None
    check(task, mixed())


class Words(nn.Module):
    """Mean of the embeddings of a sentence, of which one word stands for none."""

    def __init__(self, functional: bool = False, **options: Any) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4, **{"padding_idx": 0, **options})
        self.functional = functional

    def forward(self, x: Tensor) -> Tensor:
        words, table = x.abs().mul(2).long().clamp(max=8), self.table.weight
        if self.functional:
            return nn.functional.embedding(words, table, padding_idx=0).mean(1) @ table[:3].T
        out: Tensor = self.table(words).mean(1) @ table[:3].T
        return out


@pytest.mark.parametrize("options", [{}, {"padding_idx": 3}, {"scale_grad_by_freq": True}])
def test_the_embedding_of_padding_does_not_learn_where_trials_are_fused(
    options: dict[str, Any],
) -> None:
    task = vectors(lambda: Words(**options))
    assert why_not_fused(task, "SGD") is None
    check(task, mixed(lr=0.5), tolerance=1e-5)


def test_padding_that_torch_stacks_wrongly_is_not_fused() -> None:
    for options in ({"functional": True, "padding_idx": None}, {"max_norm": 1.0}):
        found = why_not_fused(vectors(lambda options=options: Words(**options)), "SGD")
        assert found is not None and "padding_idx that torch stacks wrongly" in found  # noqa: PT018


def test_an_embedding_of_sparse_gradients_is_not_fused_as_optimizers_may_refuse_them() -> None:
    assert why_not_fused(vectors(lambda: Words(sparse=True)), "AdamW") is not None


@pytest.mark.parametrize("model", [lambda: mlp(6, 8, 3), lambda: mlp(6, 8, 3, activation=nn.GELU)])
def test_a_class_that_the_loss_ignores_is_ignored(model: Callable[[], nn.Module]) -> None:
    check(vectors(model, loss=nn.CrossEntropyLoss(ignore_index=0)), mixed())


@pytest.mark.parametrize("ignored", [-100, 1])
@pytest.mark.parametrize("fused", [False, True])
def test_samples_that_the_loss_ignores_do_not_count_in_the_accuracy(
    ignored: int, fused: bool
) -> None:
    task = vectors(lambda: mlp(6, 8, 3))
    assert isinstance(task.validation, Split)
    x, y = task.validation.x, task.validation.y.clone()
    y[::2] = ignored
    loss = nn.CrossEntropyLoss(ignore_index=ignored)
    changes = {"loss": loss, "metric": auto_metric, "metric_name": ""}
    task = replace(task, validation=Split(x, y), **changes)
    assert task.metric_name == "accuracy"
    one = runner(task, fused)
    one.add(0, Schedule("ConstantLR", 0.05, 1))
    found = one.epoch()[0].val_metric
    model = task.model()
    model.load_state_dict(one.weights(0))
    kept = y != ignored
    assert 0 < int(kept.sum()) < len(y)
    hits = model(x[kept]).argmax(1) == y[kept]
    assert found == pytest.approx(float(hits.float().mean()))


def share_of_hits(outputs: Tensor, y: Tensor) -> float:
    """A recall: of few samples without any of the class it is not defined."""
    of_class = y == 1
    hits = (outputs.argmax(1) == y) & of_class
    if of_class.sum() <= 10:
        warnings.warn("too few samples", stacklevel=2)
        return math.nan
    return int(hits.sum()) / int(of_class.sum())


@pytest.mark.parametrize("together", [False, True])
def test_a_metric_beside_a_validation_loss_sees_all_samples_at_once(together: bool) -> None:
    loss = nn.functional.cross_entropy
    task = vectors(lambda: mlp(6, 8, 3, activation=nn.GELU), batch_size=1)  # batches of 16 and 14
    task = replace(task, validation_loss=loss, metric=share_of_hits, metric_name="")
    assert isinstance(task.validation, Split)
    check_task(task)
    assert "failed" not in choose(task, CPU, "SGD", trials=20).why
    one = runner(task, together)
    one.add(0, Schedule("ConstantLR", 0.01, 2))
    found = one.epoch()[0]
    model = task.model()
    model.load_state_dict(one.weights(0))
    outputs, y = model(task.validation.x).detach(), task.validation.y
    assert found.val_metric == pytest.approx(share_of_hits(outputs, y))
    assert found.val_loss == pytest.approx(float(loss(outputs, y)), rel=1e-5)
    assert evaluate(task, one.weights(0), task.validation, device=CPU) == pytest.approx(
        (found.val_loss, found.val_metric), rel=1e-5
    )


def with_hook(kind: str) -> nn.Module:
    model = mlp(6, 8, 3)
    if kind == "tensor":
        model[0].weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    elif kind == "module":
        model[2].register_full_backward_hook(lambda module, into, out: into)
    else:
        model[0].weight.register_post_accumulate_grad_hook(lambda parameter: None)
    return model


@pytest.mark.parametrize("kind", ["tensor", "module", "accumulated"])
def test_gradients_with_hooks_are_not_fused(kind: str) -> None:
    assert why_not_fused(vectors(lambda: with_hook(kind)), "SGD") == "its gradients have hooks"


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_clipped_gradients_train_as_alone(activation: type[nn.Module], optimizer: str) -> None:
    free = vectors(lambda: mlp(6, 8, 3, activation=activation))
    task = replace(free, clip_grad_norm=0.3)
    schedules = mixed(lr=0.05 if optimizer == "SGD" else 0.01)
    check(task, schedules, optimizer, {})
    clipped, whole = (fused(t, schedules, optimizer, {}, 3)[7][-1].val_loss for t in (task, free))
    assert clipped != pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize("clip", [0, -1.0, "1", True])
def test_a_norm_to_clip_to_is_above_zero(clip: Any) -> None:
    with pytest.raises(UsageError, match="clip_grad_norm must be a number above 0"):
        vectors(lambda: mlp(6, 3), clip_grad_norm=clip)


class Counter(nn.Linear):
    """Counts its calls in Python."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1 + self.calls)


class Listed(nn.Module):
    """Has its weights in a list as well, and computes with them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.weights = [self.layer.weight]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) * (1 + self.weights[0].square().mean() / 100)
        return out


class Hooked(nn.Module):
    """Has a hook that computes with a weight, and a lock, which no copy can have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.lock = nn.Linear(6, 3), threading.Lock()
        self.scale = nn.Parameter(torch.ones(3))
        self.layer.register_forward_hook(lambda module, given, out: out * self.scale)

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            out: Tensor = self.layer(x)
        return out


@pytest.mark.parametrize("model", [Listed, Hooked])
def test_weights_that_a_hook_or_a_list_has_are_those_of_each_trial_and_of_its_average(
    model: type[nn.Module],
) -> None:
    task = vectors(model)
    check_task(task)
    one = runner(task, False)
    one.add(0, Schedule("ConstantLR", 0.1, 3))
    result = [one.epoch()[0] for _ in range(3)][-1]
    average = one.state(0)["average"]
    loss, _ = evaluate(task, average, task.validation, device=CPU)
    assert loss == pytest.approx(result.avg_val_loss, rel=1e-6)
    assert why_not_fused(task, "SGD") is not None
    if model is Listed:
        assert "it keeps in a list or a closure" in str(why_not_fused(task, "SGD"))


def test_models_that_change_by_being_called_are_not_fused() -> None:
    why = why_not_fused(vectors(lambda: Counter(6, 3)), "SGD")
    assert why == "cannot stack Counter: its loss is another one when it is called again"


class Warms(nn.Linear):
    """Counts its calls in Python, and changes by them later."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1 if self.calls < 100 else 2)


class WarmsByTensor(nn.Linear):
    """The same with a tensor that is no buffer."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.calls = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return super().forward(x) * (1 + (self.calls - 100).clamp(0, 1))


class Keeps(nn.Linear):
    """Keeps its last outputs to look at, and a tensor that stays as it is."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.last, self.weights = torch.zeros(()), torch.ones(3)

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x) * self.weights
        self.last = out.detach()
        return out


class Deep(nn.Module):
    """Leaves out a layer once in a thousand steps."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.first, self.head, self.draw = nn.Linear(6, 6), nn.Linear(6, 3), draw

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.draw() < 1e-3 else self.first(x)
        out: Tensor = self.head(h)
        return out


class DeepByItsOwn(Deep):
    """The same by a generator that it has itself."""

    def __init__(self, kind: Callable[[int], Any]) -> None:
        super().__init__(lambda: 1.0)
        self.rng = kind(0)

    def forward(self, x: Tensor) -> Tensor:
        drawn = self.rng.random()
        out: Tensor = self.head(x if drawn < 1e-3 else self.first(x))
        return out


class Trims(nn.Linear):
    """Cuts its inputs by their values, which are one tensor while trials share them."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * (x > -9).sum(1).max().item())


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: Warms(6, 3), "Warms: it keeps a number from batch to batch (calls)"),
        (
            lambda: WarmsByTensor(6, 3),
            "WarmsByTensor: it keeps a tensor from batch to batch (calls)",
        ),
        (lambda: Deep(lambda: torch.rand(()).item()), "Deep: it decides by random numbers"),
        (lambda: Deep(random.random), "Deep: it draws random numbers of Python or numpy"),
        (
            lambda: Deep(lambda: float(np.random.rand())),
            "Deep: it draws random numbers of Python or numpy",
        ),
        (  # of which numpy makes two at a time
            lambda: Deep(lambda: abs(float(np.random.normal()))),
            "Deep: it draws random numbers of Python or numpy",
        ),
        (  # a whole turn of numpy's generator, which ends where it began
            lambda: Deep(lambda: float(np.random.rand(312)[0])),
            "Deep: it draws random numbers of Python or numpy",
        ),
        (
            lambda: DeepByItsOwn(random.Random),
            "DeepByItsOwn: it draws random numbers of Python or numpy",
        ),
        (
            lambda: DeepByItsOwn(np.random.default_rng),
            "DeepByItsOwn: it draws random numbers of Python or numpy",
        ),
        (lambda: Trims(6, 3), "Trims: vmap: It looks like you're calling .item() on a Tensor"),
    ],
)
def test_what_would_go_wrong_in_mid_run_is_not_fused(
    model: Callable[[], nn.Module], why: str
) -> None:
    before = random.getstate(), str(np.random.get_state())
    assert why_not_fused(vectors(model), "SGD") == f"cannot stack {why}"
    assert (random.getstate(), str(np.random.get_state())) == before


def test_a_model_that_keeps_its_last_outputs_or_a_fixed_tensor_is_fused() -> None:
    assert why_not_fused(vectors(lambda: Keeps(6, 3)), "SGD") is None


class Norm(nn.Module):
    """Divides by a running scale that its state_dict leaves out."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.scale.lerp_(x.detach().abs().mean() * 3, 0.1)
        out: Tensor = self.layer(x / self.scale)
        return out


@pytest.mark.parametrize("fused", [False, True])
def test_test_data_see_the_buffers_that_a_state_dict_leaves_out(fused: bool) -> None:
    task = vectors(Norm)
    one = runner(task, fused)
    one.add(0, Schedule("ConstantLR", 0.05, 2))
    result = [one.epoch()[0] for _ in range(2)][-1]
    loss, _ = evaluate(task, one.weights(0), task.validation, device=CPU, unsaved=one.unsaved(0))
    assert loss == pytest.approx(result.val_loss, rel=1e-5)


class Projected(nn.Module):
    """Draws a projection when it is made, and keeps it where no state_dict has it."""

    def __init__(self, width: int, plain: bool) -> None:
        super().__init__()
        matrix = torch.randn(6, width) / 6
        self.matrix: Any = matrix if plain else matrix.numpy()
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x @ torch.as_tensor(self.matrix))
        return out


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("width", [8, 1000])
@pytest.mark.parametrize("plain", [False, True])
def test_test_data_see_what_a_model_has_drawn_and_no_state_dict_has(
    fused: bool, width: int, plain: bool
) -> None:
    task = vectors(lambda: Projected(width, plain))
    one = runner(task, fused)
    one.add(0, Schedule("ConstantLR", 0.05, 2))
    result = [one.epoch()[0] for _ in range(2)][-1]
    loss, _ = evaluate(task, one.weights(0), task.validation, device=CPU, unsaved=one.unsaved(0))
    assert loss == pytest.approx(result.val_loss, rel=1e-5)


class Late(nn.Linear):
    """Makes a buffer when it first runs."""

    persistent = False
    cache: Tensor | None

    def __init__(self) -> None:
        super().__init__(6, 3)
        self.register_buffer("cache", None, persistent=self.persistent)

    def forward(self, x: Tensor) -> Tensor:
        if self.cache is None:
            self.cache = x.std(0).detach()
        return super().forward(x / self.cache)


class LateAndSaved(Late):
    persistent = True


class Undeclared(nn.Linear):
    """Makes one that nobody has heard of."""

    def __init__(self) -> None:
        super().__init__(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "cache"):
            self.register_buffer("cache", x.std(0).detach(), persistent=False)
        return super().forward(x / self.cache)


class Grows(nn.Linear):
    """Makes a larger one for longer inputs, as the positions of language models are kept."""

    cache: Tensor

    def __init__(self) -> None:
        super().__init__(6, 3)
        self.register_buffer("cache", torch.ones(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.cache) < x.shape[1]:
            self.register_buffer("cache", x.std(0).detach(), persistent=False)
        return super().forward(x / self.cache)


@pytest.mark.parametrize("model", [Late, LateAndSaved, Undeclared, Grows])
@pytest.mark.parametrize("compiled", [False, True])
def test_buffers_that_a_model_makes_when_it_runs_are_kept(
    model: type[nn.Module], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    task, schedule = vectors(model), Schedule("ConstantLR", 0.05, 3)

    def single() -> SingleRunner:
        options: Any = {"optimizer": "SGD", "optimizer_args": {}, "seed": 0, "device": CPU}
        return SingleRunner(task, **options, compile=compiled)

    one = single()
    one.add(0, schedule)
    results = [one.epoch()[0]]
    state = one.state(0)
    results += [one.epoch()[0] for _ in range(2)]
    loss, _ = evaluate(task, one.weights(0), task.validation, device=CPU, unsaved=one.unsaved(0))
    assert loss == pytest.approx(results[-1].val_loss, rel=1e-5)
    again = single()
    again.add(0, schedule, state)
    assert [losses(again.epoch()[0]) for _ in range(2)] == [*map(losses, results[1:])]
    one.remove(0)
    one.add(0, schedule)
    assert losses(one.epoch()[0]) == losses(results[0])


def losses(result: EpochResult) -> tuple[float, float, float]:
    return result.train_loss, result.val_loss, result.avg_val_loss


class Pair(NamedTuple):
    logits: Tensor
    size: Tensor


@dataclass(frozen=True)
class Both:
    logits: Tensor
    size: Tensor


class Structured(nn.Module):
    """Gives its outputs as a tuple, a named one, a list, a dict or an object."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.linear, self.kind = nn.Linear(6, 3), kind

    def forward(self, x: Tensor) -> Any:
        logits = self.linear(x)
        size = logits.square().mean(1)
        if self.kind is dict:
            return {"logits": logits, "size": size}
        return self.kind(logits, size) if self.kind in (Pair, Both) else self.kind((logits, size))


@pytest.mark.parametrize("kind", [tuple, Pair, list, dict, Both])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_outputs_may_be_tuples_dicts_and_dataclasses(kind: Any, precision: str) -> None:
    def loss(outputs: Any, y: Tensor) -> Tensor:
        assert type(outputs) is kind
        parts = vars(outputs) if kind is Both else outputs
        logits, size = parts.values() if isinstance(parts, dict) else parts
        assert logits.dtype == size.dtype == torch.float32
        entropy: Tensor = nn.functional.cross_entropy(logits, y) + 0.01 * size.mean()
        return entropy

    task = vectors(lambda: Structured(kind), loss=loss, metric=None, batch_size=1)
    means = []
    for whole in (None, loss):  # 30 validation samples in batches of 16
        one = SingleRunner(
            replace(task, validation_loss=whole),
            optimizer="SGD",
            optimizer_args={},
            seed=0,
            device=CPU,
            precision=precision,
        )
        one.add(0, Schedule("ConstantLR", 0.05, 1))
        means.append(one.epoch()[0].val_loss)
    assert means[0] == pytest.approx(means[1], rel=1e-5)


def test_an_object_or_distribution_that_a_model_gives_is_of_float32() -> None:
    half = torch.full((3, 2), 0.3, dtype=torch.bfloat16)
    given = SimpleNamespace(logits=half, name="head")
    assert as_float(given).logits.dtype == torch.float32
    assert given.logits is half
    inner = as_float(Independent(Normal(half, half.exp()), 1))
    assert inner.log_prob(torch.zeros(3, 2)).dtype == inner.base_dist.scale.dtype == torch.float32
    assert as_float(Categorical(logits=half)).entropy().dtype == torch.float32


class Wave(nn.Module):
    """Complex outputs of float weights: an amplitude and a phase."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_complex(self.linear(x).unflatten(1, (3, 2)))


class Fine(nn.Linear):
    """float64 outputs of float32 weights, whose differences float32 would not hold."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).double() * 1e-3 + 1e5


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (Wave, lambda z, y: (z - 1j * y[:, None]).abs().square().mean()),
        (lambda: Fine(6, 3), lambda z, y: ((z - 1e5) * 1e3 - y[:, None]).square().mean()),
    ],
)
def test_outputs_of_other_number_formats_keep_them(
    model: Callable[[], nn.Module], loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    check(vectors(model, loss=loss, metric=None), mixed())


@pytest.mark.parametrize("kind", [tuple, dict])
def test_outputs_of_several_tensors_are_not_fused(kind: Any) -> None:
    why = why_not_fused(vectors(lambda: Structured(kind)), "SGD")
    assert why == (
        "cannot stack Structured: its outputs are not one tensor with a row for each sample"
    )


class Layers(nn.Module):
    """Uses a layer of its own only from some step on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.late, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        self.steps += self.training
        if self.steps.item() > 5:
            h = h + torch.tanh(self.late(h))
        out: Tensor = self.head(h)
        return out


class Dead(nn.Module):
    """A parameter that no output depends on, beside those of a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.gate = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x + 0 * self.gate)
        return out


def runner(task: Task, fused: bool, arguments: dict[str, Any] | None = None) -> Any:
    kind: Any = EnsembleRunner if fused else SingleRunner
    given = {"momentum": 0.9} if arguments is None else arguments
    more = {"k": 2} if fused else {}
    return kind(task, optimizer="SGD", optimizer_args=given, seed=0, device=CPU, **more)


@pytest.mark.parametrize("model", [Norm, Dead, lambda: mlp(6, 8, 3)])
@pytest.mark.parametrize("first", [False, True], ids=["from single", "from fused"])
@pytest.mark.parametrize("then", [False, True], ids=["to single", "to fused"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_state_holds_all_that_training_goes_on_from(
    model: Callable[[], nn.Module], first: bool, then: bool, momentum: float
) -> None:
    task, schedule = vectors(model), Schedule("CosineAnnealingLR", 0.05, 4)
    undisturbed, one, other = (
        runner(task, fused, {"momentum": momentum}) for fused in (then, first, then)
    )
    undisturbed.add(0, schedule)
    one.add(0, schedule)
    for _ in range(2):
        one.epoch()
        undisturbed.epoch()
    other.add(0, schedule, one.state(0))
    for _ in range(2):
        expected, found = undisturbed.epoch()[0], other.epoch()[0]
        assert found.val_loss == pytest.approx(expected.val_loss, rel=1e-5)
        assert found.avg_val_loss == pytest.approx(expected.avg_val_loss, rel=1e-5)


class Counting(nn.Module):
    """Keeps a number, a flag and a tensor as plain attributes, by which its outputs change."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.steps, self.begun = 0, False
        self.mean: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x)
        if self.training:
            self.steps, self.begun = self.steps + 1, True
            mean = out.detach().mean(0)
            self.mean = mean if self.mean is None else 0.9 * self.mean + 0.1 * mean
        out = out * (1 + self.steps / 10)
        return out - self.mean if self.begun and self.mean is not None else out


def interrupted(
    task: Task, schedule: Schedule, path: Path
) -> tuple[SingleRunner, list[EpochResult]]:
    """Four epochs of trial 0; another runner goes on from the second, and has the same."""

    def single() -> SingleRunner:  # a compiled model is made once, for all trials
        options: Any = {"optimizer": "SGD", "optimizer_args": {}, "seed": 0, "device": CPU}
        return SingleRunner(task, **options, compile=True)

    one, other = single(), single()
    one.add(0, schedule)
    results = [one.epoch()[0] for _ in range(2)]
    save(path, one.state(0))
    results += [one.epoch()[0] for _ in range(2)]
    other.add(0, schedule, load(path))
    assert [losses(other.epoch()[0]) for _ in range(2)] == [*map(losses, results[2:])]
    return one, results


def test_what_a_model_counts_goes_on_with_a_state_and_into_the_test_and_not_to_the_next_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    task, schedule = vectors(Counting), Schedule("ConstantLR", 0.05, 4)

    one, results = interrupted(task, schedule, tmp_path / "trial.pt")
    loss, _ = evaluate(task, one.weights(0), task.validation, device=CPU, unsaved=one.unsaved(0))
    assert loss == pytest.approx(results[-1].val_loss, rel=1e-5)
    one.remove(0)
    one.add(0, schedule)
    assert losses(one.epoch()[0]) == losses(results[0])


class Remembers(nn.Module):
    """Goes on from its outputs for the last batch, as recurrent layers may."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.cell, self.head = nn.Linear(6, width), nn.Linear(width, 3)
        self.kept: Any = None

    def forward(self, x: Tensor) -> Tensor:
        out = torch.tanh(self.cell(x) + self.last())
        self.keep(out.detach())
        given: Tensor = self.head(out)
        return given

    def last(self) -> Any:
        return 0 if self.kept is None else self.kept.mean(0)

    def keep(self, out: Tensor) -> None:
        self.kept = out


class InTuple(Remembers):
    def last(self) -> Any:
        return 0 if self.kept is None else self.kept[1][0].mean(0)

    def keep(self, out: Tensor) -> None:
        self.kept = 1, (out, out)


class InList(Remembers):
    """One that two names have."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = self.also = [torch.zeros(1, 8)]

    def last(self) -> Any:
        return self.also[0].mean(0)

    def keep(self, out: Tensor) -> None:
        self.kept[0] = out


class InDict(InTuple):
    def keep(self, out: Tensor) -> None:
        self.kept = {1: [out]}


class Draws(Remembers):
    """Adds noise of a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = torch.Generator()

    def last(self) -> Any:
        return torch.randn(8, generator=self.kept)

    def keep(self, out: Tensor) -> None:
        pass


class DrawsOfNumpy(Draws):
    def __init__(self) -> None:
        super().__init__()
        self.kept = np.random.default_rng(0)

    def last(self) -> Any:
        return torch.from_numpy(self.kept.normal(size=8)).float()


@pytest.mark.parametrize(
    "model",
    [Remembers, lambda: Remembers(1000), InTuple, InList, InDict, Draws, DrawsOfNumpy],
    ids=["tensor", "large tensor", "tuple", "list", "dict", "generator", "numpy's generator"],
)
def test_what_a_model_remembers_of_the_last_batch_goes_on_with_a_state(
    model: Callable[[], nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    task, schedule = vectors(model), Schedule("ConstantLR", 0.05, 4)

    one, results = interrupted(task, schedule, tmp_path / "trial.pt")
    one.remove(0)
    one.add(0, schedule)
    assert losses(one.epoch()[0]) == losses(results[0])
    assert why_not_fused(task, "SGD") is not None


class Looking(nn.Module):
    """Keeps its weights under another name, to read them outside of autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.seen = self.head.weight.data

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x)
        return out / (1 + self.seen.norm())


class Told(nn.Module):
    """Divides by what it was given to look at."""

    def __init__(self, count: Tensor) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x / (1 + self.count)


class Tells(nn.Module):
    """Counts in a tensor that one of its parts sees."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.count = nn.Linear(6, 3), torch.zeros(1)
        self.told = Told(self.count)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.count += 1
        out: Tensor = self.told(self.head(x))
        return out


def test_a_tensor_that_two_parts_of_a_model_share_is_one_after_a_state_too() -> None:
    def single() -> SingleRunner:
        options: Any = {"optimizer": "SGD", "optimizer_args": {}, "seed": 0, "device": CPU}
        return SingleRunner(vectors(Tells), **options)

    one, other = single(), single()
    one.add(0, Schedule("ConstantLR", 0.05, 4))
    one.epoch()
    other.add(0, Schedule("ConstantLR", 0.05, 4), one.state(0))
    assert losses(other.epoch()[0]) == losses(one.epoch()[0])


def test_a_view_of_the_weights_is_one_of_those_that_are_trained_after_a_state_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    task, schedule = vectors(Looking), Schedule("ConstantLR", 0.05, 4)

    def single() -> SingleRunner:
        options: Any = {"optimizer": "SGD", "optimizer_args": {}, "seed": 0, "device": CPU}
        return SingleRunner(task, **options, compile=True)

    one, other = single(), single()
    one.add(0, schedule)
    results = [one.epoch()[0] for _ in range(2)]
    state = one.state(0)
    results += [one.epoch()[0] for _ in range(2)]
    other.add(0, schedule, state)
    assert [losses(other.epoch()[0]) for _ in range(2)] == [*map(losses, results[2:])]
    one.remove(0)
    one.add(0, schedule)
    assert [losses(one.epoch()[0]) for _ in range(2)] == [*map(losses, results[:2])]


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_multi_step_schedule_goes_on_from_inside_its_warmup(interval: Any, stop: int) -> None:
    task = vectors(lambda: mlp(6, 8, 3))
    args = {"milestones": [2, 4], "gamma": 0.1}
    schedule = Schedule("MultiStepLR", 0.1, 8, args, warmup=3, interval=interval)
    one, other = runner(task, False), runner(task, False)
    one.add(0, schedule)
    for _ in range(stop):
        one.epoch()
    other.add(0, schedule, one.state(0))
    for _ in range(stop, 8):
        assert one.epoch()[0].val_loss == other.epoch()[0].val_loss


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_parameter_may_get_its_first_gradient_late(optimizer: str) -> None:
    x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))
    finals = []
    for extra in ({}, {"foreach": False}):
        torch.manual_seed(0)
        model = Layers().train()
        arguments = {"momentum": 0.9, **extra} if optimizer == "SGD" else dict(extra)
        rule = build_optimizer(optimizer, arguments, model, lr=0.1)
        for _ in range(10):
            rule.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            rule.step()
        finals.append(model(x))
    torch.testing.assert_close(finals[0], finals[1])


def test_sparse_gradients_train() -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.EmbeddingBag(20, 6, sparse=True), nn.Linear(6, 3))

    x, y = torch.randint(0, 20, (40, 5)), torch.randint(0, 3, (40,))
    task = Task("bags", model, Split(x[:30], y[:30]), Split(x[30:], y[30:]), batch_size=10)
    alone = runner(task, False)
    alone.add(0, Schedule("ConstantLR", 0.05, 2))
    assert np.isfinite([alone.epoch()[0].val_loss for _ in range(2)]).all()


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Adds random numbers of torch, numpy or Python to its samples."""

    def __init__(self, draw: Callable[[], float]) -> None:
        task = vectors(lambda: mlp(6, 8, 3))
        assert isinstance(task.train, Split)
        self.split, self.draw = task.train, draw

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.split.x[i] + self.draw(), self.split.y[i]


def draw_of_torch() -> float:
    return float(torch.rand(()))


class Stepwise(Noisy):
    """Adds them by a transform of two steps, of which each has a generator."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.transform = SimpleNamespace(transforms=[NoiseStep(), NoiseStep()])

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        x, y = super().__getitem__(i)
        for step in self.transform.transforms:
            x = step(x)
        return x, y


class NoiseStep:
    def __init__(self) -> None:
        self.random = np.random.default_rng(0)

    def __call__(self, x: Tensor) -> Tensor:
        return x + float(self.random.normal())


def loaders(kind: str) -> tuple[Any, Any]:
    draws: dict[str, Callable[[], float]] = {
        "python": random.random,
        "numpy": lambda: float(np.random.rand()),
        "torch": draw_of_torch,
        "workers": draw_of_torch,
    }
    data: Any = Noisy(draws.get(kind, lambda: 0.0))
    if kind == "parts":
        data = ConcatDataset([Stepwise(), Stepwise()])
    if kind == "batch sampler":
        order = RandomSampler(data, generator=torch.Generator().manual_seed(3))
        return DataLoader(data, batch_sampler=BatchSampler(order, 16, False)), DataLoader(data, 35)
    if kind == "validation":
        shuffled = DataLoader(data, 16, shuffle=True, drop_last=True)
        return DataLoader(data, 16, shuffle=True), shuffled
    if kind == "workers":
        persistent = DataLoader(data, 16, True, num_workers=1, persistent_workers=True)
        return persistent, DataLoader(data, 35)
    return DataLoader(data, 16, shuffle=True), DataLoader(data, 35)


@pytest.mark.parametrize(
    "kind", ["python", "numpy", "torch", "batch sampler", "validation", "workers", "parts"]
)
def test_two_trials_of_one_schedule_draw_the_same_numbers(kind: str) -> None:
    train, validation = loaders(kind)
    task = replace(vectors(lambda: mlp(6, 8, 3)), train=train, validation=validation)
    found = []
    for _ in range(2):
        one = runner(task, False)
        one.add(0, Schedule("ConstantLR", 0.05, 3))
        found.append([one.epoch()[0].val_loss for _ in range(3)])
        random.random(), np.random.rand(), torch.rand(())  # a program draws between them
    assert found[0] == found[1]


def test_initial_weights_that_numpy_and_python_draw_are_the_same_in_all_trials() -> None:
    def model() -> nn.Module:
        net = mlp(6, 8, 3)
        first, last = net[0], net[-1]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)  # noqa: PT018
        with torch.no_grad():
            first.weight.copy_(torch.from_numpy(np.random.randn(8, 6)))
            last.bias.fill_(random.random())
        return net

    found = []
    for kind in (False, False, True):
        one = runner(vectors(model), kind)
        one.add(0, Schedule("ConstantLR", 0.05, 1))
        found.append(one.epoch()[0].val_loss)
    assert found[0] == found[1] == pytest.approx(found[2])


@pytest.mark.parametrize("kind", ["python", "numpy", "torch", "workers", "parts"])
def test_a_resumed_trial_draws_the_numbers_that_it_would_have_drawn(kind: str) -> None:
    train, validation = loaders(kind)
    task = replace(vectors(lambda: mlp(6, 8, 3)), train=train, validation=validation)
    schedule = Schedule("ConstantLR", 0.05, 4)
    one = runner(task, False)
    one.add(0, schedule)
    losses = []
    for epoch in range(4):
        if epoch == 2:
            state = one.state(0)
        losses.append(one.epoch()[0].val_loss)
    random.random(), np.random.rand(), torch.rand(())  # another process has drawn otherwise
    other = runner(task, False)
    other.add(0, schedule, state)
    assert [other.epoch()[0].val_loss for _ in range(2)] == losses[2:]
    assert len(set(losses)) == 4


def test_a_program_draws_its_own_numbers_as_if_nothing_had_been_trained() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def seed() -> None:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)

    seed()
    expected = draw()
    seed()
    one = runner(vectors(lambda: mlp(6, 8, 3)), False)
    one.add(0, Schedule("ConstantLR", 0.05, 1))
    one.epoch()
    assert draw() == expected


class Denoises(nn.Linear):
    """Draws noise in validation, too, as diffusion models do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.randint(3, (len(x), 1)) * torch.randn_like(x))


def by_the_batch() -> nn.Module:
    """Takes the statistics of batch norm from the batch in validation, too."""
    norm = nn.BatchNorm1d(8, track_running_stats=False)
    return nn.Sequential(nn.Linear(6, 8), norm, nn.GELU(), nn.Linear(8, 3))


@pytest.mark.parametrize("model", [lambda: Denoises(6, 3), by_the_batch])
def test_fused_models_whose_samples_depend_on_each_other_are_validated_as_alone(
    model: Callable[[], nn.Module],
) -> None:
    task = vectors(model, batch_size=4)  # 30 validation samples
    assert why_not_fused(task, "SGD") is None
    found = []
    for together in (False, True):
        one = runner(task, together)
        one.add(0, Schedule("ConstantLR", 0.05, 2))
        found.append([one.epoch()[0].val_loss for _ in range(2)])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.parametrize("model", [lambda: Denoises(6, 3), by_the_batch])
@pytest.mark.parametrize(
    ("limit", "floats"),
    [("training.stacked_vmap.CHUNK_FLOATS", 100), ("tasks.batch.EVALUATION_OUTPUTS", 60)],
)
def test_samples_that_depend_on_each_other_stay_together_where_memory_is_limited(
    model: Callable[[], nn.Module], limit: str, floats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"lrsearch.{limit}", floats)  # of 30 samples with 6 floats, 3 outputs
    task = vectors(model, batch_size=4)
    schedules = [Schedule("ConstantLR", lr, 1) for lr in (0.05, 0.2)]
    expected = []
    for schedule in schedules:
        one = runner(task, False)
        one.add(0, schedule)
        expected.append(one.epoch()[0].val_loss)
    both = runner(task, True)
    for key, schedule in enumerate(schedules):
        both.add(key, schedule)
    results = both.epoch()
    assert [results[key].val_loss for key in (0, 1)] == pytest.approx(expected, rel=1e-5)


class CountsCalls(nn.Linear):
    """Keeps in a buffer how often it was called, in evaluation mode, too."""

    def __init__(self) -> None:
        super().__init__(6, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


def test_a_model_that_counts_its_calls_in_a_buffer_is_fused() -> None:
    assert why_not_fused(vectors(CountsCalls, batch_size=4), "SGD") is None


class Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Says that it has 5 batches, and gives another number."""

    def __init__(self, given: int) -> None:
        self.given = given

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.given):
            yield torch.randn(8, 6, generator=generator), torch.zeros(8, dtype=torch.long)


@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
@pytest.mark.parametrize("given", [3, 5, 8])
@pytest.mark.parametrize("family", ["OneCycleLR", "CosineAnnealingLR"])
def test_a_schedule_ends_with_its_epochs_whatever_a_loader_says(given: int, family: str) -> None:
    task = replace(vectors(lambda: mlp(6, 8, 3)), train=DataLoader(Batches(given), None))
    schedule = Schedule(family, 0.1, 3, interval="step")
    one = runner(task, False)
    one.add(0, schedule)
    rates = [one.epoch()[0].lr for _ in range(3)]
    trace = schedule.trace(5).lr
    last = min(given, 5) - 1
    assert rates == pytest.approx([float(trace[5 * epoch + last]) for epoch in range(3)])


@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
def test_a_loader_that_never_ends_is_an_error() -> None:
    task = replace(vectors(lambda: mlp(6, 8, 3)), train=DataLoader(Batches(10**9), None))
    one = runner(task, False)
    one.add(0, Schedule("ConstantLR", 0.1, 3))
    with pytest.raises(LrsearchError, match="gives more than 10 batches, and has a length of 5;"):
        one.epoch()


class Rows(IterableDataset[Any]):
    """Twenty samples, of which each worker gives all, or its part."""

    def __init__(self, parts: bool) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return 20

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info and self.parts else (0, 1)
        yield from ((torch.full((6,), float(i)), 0) for i in range(first, 20, step))


def test_workers_that_each_give_all_of_a_stream_are_an_error() -> None:
    def train(parts: bool) -> None:
        loader = DataLoader(Rows(parts), 4, num_workers=2)
        one = runner(replace(vectors(lambda: mlp(6, 8, 3)), train=loader), False)
        one.add(0, Schedule("ConstantLR", 0.001, 1))
        one.epoch()

    train(parts=True)  # 6 batches of a length of 5
    with pytest.raises(
        LrsearchError, match=r"than 9 batches, .* of 5; .*does each worker give all"
    ):
        train(parts=False)


def test_a_loader_that_gives_its_batches_once_ends_the_range_test_with_a_line() -> None:
    once = iter([(torch.randn(8, 6), torch.zeros(8, dtype=torch.long))] * 5)

    class Once(Batches):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return once

    task = replace(vectors(lambda: mlp(6, 8, 3)), train=DataLoader(Once(5), None))
    with pytest.raises(LrsearchError, match="train gave no batch in epoch 2 of the lr range test"):
        lr_range_test(task, optimizer="SGD", optimizer_args={}, seed=0, device=CPU)


@pytest.mark.parametrize(
    ("y", "samples"),
    [
        (torch.zeros(7, 2), 7),
        (torch.zeros(()), 1),
        ((torch.zeros(5), torch.zeros(5, 3)), 5),
        ([3, torch.zeros(4)], 4),
        ({"boxes": [torch.zeros(6)], "labels": torch.zeros(2)}, 6),
        (({"boxes": torch.zeros(6, 4)}, {"boxes": torch.zeros(1, 4)}), 2),
        (({"kind": torch.zeros(9)}, {"age": torch.zeros(9)}), 9),  # of two heads
        ("text", 1),
        ([], 1),
    ],
)
def test_samples_of_a_batch_are_counted_by_its_first_tensor(y: Any, samples: int) -> None:
    assert count(y) == samples


@pytest.mark.parametrize(
    ("y", "outputs", "samples"),
    [
        ((torch.zeros(70), torch.zeros(8)), torch.zeros(8, 20), 8),  # targets in a row: CTC
        ({"all": torch.zeros(70), "lengths": torch.zeros(8)}, (torch.zeros(8, 20),), 8),
        ((torch.zeros(70), torch.zeros(8)), torch.zeros(20, 8, 5), 70),  # nothing tells
        ((torch.zeros(70), torch.zeros(8), torch.zeros(8)), torch.zeros(20, 8, 5), 8),
        ([torch.zeros(n) for n in (3, 5, 4)], torch.zeros(3, 20), 3),
        ((torch.zeros(8, 3), torch.zeros(8)), torch.zeros(16, 20), 8),  # two views in a row
        ((torch.zeros(()), torch.zeros(8)), torch.zeros(()), 8),
        (torch.zeros(8, 30), torch.zeros(20, 8, 5), 8),
        (tuple({"boxes": torch.zeros(n, 4)} for n in (1, 3)), {"loss": torch.zeros(())}, 2),
    ],
)
def test_targets_of_any_length_count_by_what_has_a_row_for_each_sample(
    y: Any, outputs: Any, samples: int
) -> None:
    assert count(y, outputs) == samples


ROW = torch.zeros(4, 5), torch.zeros(3, 5)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (
            [torch.zeros(4, 5, 2), torch.zeros(4, 7, 2)],
            r"at once, and outputs of shapes \(4, 5, 2\) and \(4, 7, 2\) cannot be joined: the "
            "first dimension must be the samples, and all others the same; pad all batches to one",
        ),
        ([(ROW[0], torch.zeros(()))] * 2, "outputs that are one number for a whole batch"),
        (
            [(ROW[0], {}), (ROW[1], None)],
            "outputs of type dict cannot be joined; give tensors, or",
        ),
        ([{"a": ROW[0]}, {"b": ROW[1]}], "outputs have keys a, and later b"),
    ],
)
def test_batches_that_cannot_become_one_are_told_with_their_shapes(
    batches: list[Any], message: str
) -> None:
    with pytest.raises(LrsearchError, match=message):
        joined(batches, "outputs")


def test_batches_become_one_part_by_part_and_lists_of_samples_in_a_row() -> None:
    torch.testing.assert_close(joined(ROW, "outputs"), torch.zeros(7, 5))
    whole, nothing = joined([(ROW[0], None), (ROW[1], None)], "outputs")
    assert (len(whole), nothing) == (7, None)
    assert joined([["a", "b"], ["c", "d"]], "targets") == ["a", "b", "c", "d"]
    lines = [torch.zeros(n) for n in (3, 2, 6)]
    assert [*map(len, joined([tuple(lines[:2]), tuple(lines[2:])], "targets"))] == [3, 2, 6]
    other = {"z": ROW[1], "a": ROW[1] + 1}  # the same keys in another order
    assert joined([{"a": ROW[0], "z": ROW[0]}, other], "outputs")["a"].sum() == 15


class TwoParts(nn.Linear):
    """Its outputs are two dicts, as those of two views."""

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"z": super().forward(x)}, {"z": super().forward(-x)}


def test_a_validation_loss_sees_dicts_of_images_in_a_row_and_those_of_views_joined() -> None:
    boxes = [1, 1, 1, 1, 3, 2, 1]  # of each image: batches of 4 and 3 images
    samples = [(torch.ones(6), {"boxes": torch.full((n, 4), float(n))}) for n in boxes]

    def collate(batch: list[Any]) -> tuple[Tensor, tuple[Any, ...]]:
        return torch.stack([x for x, _ in batch]), tuple(y for _, y in batch)

    def seen(outputs: Any, y: Any) -> Tensor:
        assert [len(each["boxes"]) for each in y] == boxes[: len(y)]
        assert [len(view["z"]) for view in outputs] == [len(y)] * 2
        return torch.tensor(float(len(y)))

    loader = DataLoader(samples, 4, collate_fn=collate)
    model = TwoParts(6, 3)
    task = replace(
        vectors(lambda: model),
        validation=loader,
        validation_loss=seen,
        metric=None,
        transform=None,
    )
    assert evaluate(task, model.state_dict(), loader, device=CPU) == (7.0, None)


@dataclass
class Graph:
    """A batch as an object of the user's own: targets are among its fields."""

    x: Tensor
    y: Tensor

    def to(self, device: torch.device) -> Graph:
        return Graph(self.x.to(device), self.y.to(device))


class OfGraphs(nn.Linear):
    def forward(self, graph: Graph) -> Tensor:
        return super().forward(graph.x)


def test_a_batch_may_be_an_object_that_goes_to_model_and_loss() -> None:
    split = vectors(lambda: mlp(6, 8, 3)).validation
    assert isinstance(split, Split)  # 30 samples: batches of 16 and 14

    def pair(samples: list[tuple[Tensor, Tensor]]) -> tuple[Graph, Graph]:
        graph = Graph(*default_collate(samples))
        return graph, graph

    loader = DataLoader(list(zip(split.x, split.y, strict=True)), 16, collate_fn=pair)
    task = as_task(
        {
            "model": lambda: OfGraphs(6, 3),
            "train": loader,
            "validation": loader,
            "loss": lambda outputs, graph: nn.functional.cross_entropy(outputs, graph.y),
        },
        "graphs",
    )
    check_task(task)
    one = runner(task, False)
    one.add(0, Schedule("ConstantLR", 0.05, 1))
    found = one.epoch()[0].val_loss
    model = task.model()
    model.load_state_dict(one.weights(0))
    whole = nn.functional.cross_entropy(model(Graph(split.x, split.y)), split.y)
    assert found == pytest.approx(float(whole.detach()))
    with pytest.raises(LrsearchError, match="once, and targets of type Graph cannot be joined;"):
        evaluate(replace(task, validation_loss=task.loss), one.weights(0), loader, device=CPU)
