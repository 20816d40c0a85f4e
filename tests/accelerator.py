"""A device that is not the CPU, on machines without one, and training on it.

Its tensors are held by CPU tensors and computed by the CPU. It refuses what a GPU refuses: tensors
of two devices in one operation, random numbers from another device's generator, ``numpy()``, and,
as MPS does, float64; and copies to the CPU that nobody waits for, whose numbers CUDA gives too
early. It counts the readings by which a program waits for a device. Autocast reaches it and
changes nothing: it computes in float32. Registering it changes the whole process: hence
``python -m tests.accelerator``, which prints what training gave as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree, backend_registration
from torch.utils.data import DataLoader, TensorDataset

from lrsearch import cli
from lrsearch.errors import LrsearchError
from lrsearch.measured import EpochResult
from lrsearch.schedules import Schedule
from lrsearch.tasks import tried
from lrsearch.tasks.check import load_test
from lrsearch.tasks.custom import as_task
from lrsearch.tasks.images import Augment
from lrsearch.tasks.kept import with_samples_kept
from lrsearch.tasks.task import Split, Task
from lrsearch.training import checkpoint
from lrsearch.training import device as devices
from lrsearch.training.ensemble import EnsembleRunner
from lrsearch.training.loop import SingleRunner
from lrsearch.training.runner import Runner

NAME = "elsewhere"
CPU = torch.device("cpu")
EPOCHS = 4
BETWEEN = {"aten::copy_", "aten::_to_copy"}
INDEXING = {"aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select"}
has_float64 = False
"""Whether the device has float64, as torch's own loss scale for fp16 asks."""
waits: list[str] = []
"""Every reading since the list was emptied."""


class Elsewhere(Tensor):
    """A tensor of the device; ``held`` has its numbers."""

    held: Tensor
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        waits.append("tolist")
        return self.held.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        held: Any = self.held
        return held.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # the stub has no func
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _call(func, *args, **(kwargs or {}))


def _call(op: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation: what a GPU would refuse, or the CPU's result put on the device."""
    name = op._schema.name
    flat, tree = _pytree.tree_flatten((args, kwargs))
    tensors = [value for value in flat if isinstance(value, Tensor)]
    here = [value for value in tensors if isinstance(value, Elsewhere)]
    asked = kwargs.get("device")
    made_here = asked is not None and asked.type == NAME
    if name in WAITS:
        waits.append(name)
    if here and name not in BETWEEN:
        for tensor in tensors:
            index = name in INDEXING and tensor.dtype in (torch.int64, torch.bool)
            if not isinstance(tensor, Elsewhere) and tensor.dim() > 0 and not index:
                raise RuntimeError(f"{name}: tensors of two devices, one {tuple(tensor.shape)}")
    to_cpu = here and name == "aten::_to_copy" and asked is not None and not made_here
    if to_cpu and kwargs.get("non_blocking"):
        raise RuntimeError(f"{name}: to the CPU, without waiting for it")
    generator = kwargs.get("generator")
    if generator is not None and (here or made_here) and generator._cdata not in Generator.here:
        raise RuntimeError(f"{name}: a generator of another device")
    held = [_held(value) for value in flat]
    plain_args, plain_kwargs = _pytree.tree_unflatten(held, tree)
    result = op(*plain_args, **plain_kwargs)
    if name == "aten::copy_":
        on_device = isinstance(args[0], Elsewhere)
    else:
        on_device = made_here if asked is not None else bool(here)
    known = {id(tensor.held): tensor for tensor in here}

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if on_device and value.dtype == torch.float64 and not has_float64:
            raise TypeError(f"{name}: float64 is not on this device")
        if id(value) in known:  # an operation in place
            return known[id(value)] if name != "aten::_to_copy" or on_device else value
        return Elsewhere(value) if on_device else value

    return _pytree.tree_map(wrap, result)


def _held(value: Any) -> Any:
    if isinstance(value, Elsewhere):
        return value.held
    return CPU if isinstance(value, torch.device) and value.type == NAME else value


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of ``torch.elsewhere``. The CPU's generator draws all its numbers."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.zeros(0)

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        assert not state.numel()


class Generator(torch.Generator):
    """One of the CPU, which may be asked for as one of the device."""

    here: ClassVar[dict[int, torch.Generator]] = {}
    """By where they are in memory: torch hands on other objects."""

    def __new__(cls, device: Any = CPU) -> Generator:
        there = torch.device(device).type == NAME
        made = super().__new__(cls, CPU if there else device)
        if there:
            cls.here[made._cdata] = made
        return made


def register() -> torch.device:
    """Make the device known to torch, for the rest of this process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
    library: Any = torch.library.Library
    everything, aten = library("_", "IMPL"), library("aten", "IMPL")
    everything.fallback(_call, "PrivateUse1")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    aten.impl("empty.memory_format", _maker(torch.ops.aten.empty.memory_format), "PrivateUse1")
    aten.impl("empty_strided", _maker(torch.ops.aten.empty_strided.default), "PrivateUse1")
    _libraries.extend((everything, aten))
    torch.Generator = Generator  # type: ignore[misc]
    torch.tensor, torch.as_tensor = _through_cpu(torch.tensor), _through_cpu(torch.as_tensor)
    return torch.device(NAME, 0)


_libraries: list[object] = []
"""What torch forgets when nobody holds it."""


def _maker(op: Any) -> Callable[..., Tensor]:
    def make(*args: Any, **kwargs: Any) -> Tensor:
        return Elsewhere(op(*args, **{**kwargs, "device": CPU, "pin_memory": False}))

    return make


def _through_cpu(maker: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.tensor does not ask devices that are written in Python."""

    def make(data: Any, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        made = maker(data, dtype=dtype)
        return made if device is None else made.to(device)

    return make


# what is trained there


class Net(nn.Module):
    """Convolutions, batch norm, dropout, and a constant of its own."""

    scale: Tensor

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.head, self.dropout = nn.Linear(4, 3), dropout
        self.register_buffer("scale", torch.full((4,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm(self.stem(x))).mean((2, 3)) * self.scale
        logits: Tensor = self.head(F.dropout(h, self.dropout, self.training))
        return logits


class Last(nn.Module):
    """A recurrent net that makes its first state itself."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.RNNCell(2, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 5)
        for step in x.view(-1, 3, 2).unbind(1):
            h = self.cell(step, h)
        logits: Tensor = self.head(h)
        return logits


def dense() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


class Forgetful(nn.Module):
    """Makes a tensor without saying where."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x) + torch.zeros(3)
        return logits


class There(nn.Module):
    """Runs on the device alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x) + torch.zeros(3, device=torch.device(NAME, 0))
        return logits


LOADED = nn.Linear(6, 6).requires_grad_(False)


def on_top() -> nn.Sequential:
    """A head on a network that all models have, as one that was loaded before."""
    return nn.Sequential(LOADED, nn.Linear(6, 3))


class Centre(nn.Module):
    """A transform with a tensor of its own."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((6,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean


def dropped() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def weighted() -> nn.Module:
    return nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))


def share_right(outputs: Tensor, y: Tensor) -> Any:
    """A metric of numpy's type, which is float64."""
    return np.float64((outputs.argmax(1) == y).sum().item() / len(y))


def vectors(model: Callable[[], nn.Module], **more: Any) -> Task:
    x = torch.randn(100, 6, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] > 0.2).long() + (x[:, 1] * x[:, 2] > 0).long()
    return Task("task", model, Split(x[:64], y[:64]), Split(x[64:], y[64:]), batch_size=16, **more)


def images(model: Callable[[], nn.Module], **more: Any) -> Task:
    x = torch.randn(100, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    y = (x.mean((1, 2, 3)) > 0).long() + (x[:, 0, 0, 0] > 0).long()
    return Task("task", model, Split(x[:64], y[:64]), Split(x[64:], y[64:]), batch_size=16, **more)


def loader() -> Task:
    """Batches that are dicts, from a DataLoader."""
    split = vectors(dense).train
    assert isinstance(split, Split)
    data = TensorDataset(split.x, split.y)
    return Task("task", dense, DataLoader(data, 16), DataLoader(data, 32))


class Both(nn.Module):
    """Takes two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 8), nn.Linear(10, 3)

    def forward(self, given: list[Tensor]) -> Any:
        return self.head(torch.cat([self.stem(given[0]).relu(), given[1]], 1))


def two_inputs() -> Task:
    split = vectors(dense).train
    assert isinstance(split, Split)
    data = (split.x[:, :4], split.x[:, 4:]), split.y
    given = {"model": Both, "train": data, "validation": data, "batch_size": 16}
    return with_samples_kept(as_task(given, "task"))


def two_rates(model: nn.Module) -> list[dict[str, Any]]:
    first, *others = model.parameters()
    return [{"params": [first], "lr": 0.1}, {"params": others, "lr": 0.01}]


@dataclass(frozen=True)
class Case:
    """What is trained, and how."""

    task: Callable[[], Task]
    runner: type[SingleRunner] | type[EnsembleRunner] = SingleRunner
    optimizer: str = "SGD"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "fp32"

    def start(self, device: torch.device) -> Runner:
        more = {"k": 3} if self.runner is EnsembleRunner else {}
        return self.runner(
            self.task(),
            optimizer=self.optimizer,
            optimizer_args=self.arguments,
            seed=0,
            device=device,
            precision=self.precision,
            **more,  # type: ignore[arg-type]
        )


MOMENTUM = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
SINGLE: dict[str, Case] = {
    "dense": Case(lambda: vectors(dense), arguments=MOMENTUM),
    "a metric of numpy": Case(lambda: vectors(dense, metric=share_right)),
    "class weights": Case(lambda: vectors(dense, loss=weighted())),
    "class weights, dropout": Case(lambda: vectors(dropped, loss=weighted())),
    "a transform of tensors": Case(lambda: vectors(dense, transform=Centre())),
    "images, augmented": Case(
        lambda: images(Net, augment=Augment(pad=2, flip=True), transform=lambda x: x * 2.0),
        optimizer="AdamW",
    ),
    "dropout": Case(lambda: images(lambda: Net(0.3)), arguments=MOMENTUM),
    "recurrent": Case(lambda: vectors(Last), optimizer="Adam"),
    "bf16": Case(lambda: images(Net), precision="bf16"),
    "fp16": Case(lambda: images(Net), precision="fp16"),
    "two inputs": Case(two_inputs),
    "loader": Case(loader, optimizer="RMSprop"),
    "groups": Case(lambda: vectors(dense, param_groups=two_rates), arguments=MOMENTUM),
}
CASES = SINGLE | {
    f"{name}, fused": replace(case, runner=EnsembleRunner)
    for name, case in SINGLE.items()
    if name not in ("fp16", "loader", "groups", "recurrent")
}


def schedules() -> list[Schedule]:
    return [
        Schedule("CosineAnnealingLR", lr=0.05, epochs=EPOCHS),
        Schedule("OneCycleLR", lr=0.08, epochs=EPOCHS, interval="step"),
        Schedule(
            "ReduceLROnPlateau",
            lr=0.1,
            epochs=EPOCHS,
            params={"factor": 0.3, "patience": 0, "min_lr": 0.0},
        ),
    ]


def train(case: Case, device: torch.device, file: Path) -> dict[str, Any]:
    """Histories of the trials, those that go on from a file after half, and readings an epoch."""
    global has_float64
    has_float64 = case.precision == "fp16"
    histories, resumed, readings = [], [], []
    groups = [schedules()] if case.runner is EnsembleRunner else [[s] for s in schedules()]
    for group in groups:
        runner = case.start(device)
        for key, schedule in enumerate(group):
            runner.add(key, schedule)
        results = []
        for epoch in range(EPOCHS):
            waits.clear()
            results.append(runner.epoch())
            readings.append(len(waits))
            if epoch + 1 == EPOCHS // 2:
                checkpoint.save(file, {str(key): runner.state(key) for key in results[0]})
        histories += [[_numbers(result[key]) for result in results] for key in results[0]]
        states = checkpoint.load(file)
        assert states is not None
        again = case.start(device)
        for key, schedule in enumerate(group):
            again.add(key, schedule, states[str(key)])
        rest = [again.epoch() for _ in range(EPOCHS // 2)]
        resumed += [[_numbers(result[key]) for result in rest] for key in rest[0]]
    return {"histories": histories, "resumed": resumed, "readings": readings}


def _numbers(result: EpochResult) -> list[float]:
    return [float(value) for name, value in asdict(result).items() if name != "seconds"]


def commands(folder: str) -> dict[str, int]:
    """What the program itself says to a study on the device: its exit codes."""
    devices.available = lambda: ["cpu", f"{NAME}:0"]
    where = ["--device", f"{NAME}:0", "--storage", f"sqlite:///{folder}/study.db", "--quiet"]
    study = ["--task", "digits", "--trials", "6", "--epochs", "3", "--out", folder]
    with redirect_stdout(sys.stderr):
        return {
            "run": cli.main(["run", *study, "--lr", "auto", "--fuse", "4", *where]),
            "confirm": cli.main(["confirm", "digits", "--seeds", "2", *where]),
            "train": cli.main(["train", f"{folder}/digits/best.yaml", *where[:2]]),
        }


MISTAKES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "two devices": lambda here, there: here + there,
    "a matrix product of two devices": lambda here, there: here @ there,
    "numpy": lambda here, there: here.numpy(),
    "a copy that nobody waits for": lambda here, there: here.to(CPU, non_blocking=True),
    "float64": lambda here, there: here.double(),
    "its numbers by the CPU's generator": lambda here, there: here.normal_(
        generator=torch.Generator()
    ),
}


def refusals(device: torch.device) -> dict[str, str]:
    """What the device says to each mistake."""
    said = {}
    for name, mistake in MISTAKES.items():
        try:
            mistake(torch.ones(2, device=device), torch.ones(2))
            said[name] = "nothing"
        except (RuntimeError, TypeError) as error:
            said[name] = str(error)
    return said


def there(task: Task, device: torch.device) -> Task:
    """Data and class weights on the device already."""
    assert isinstance(task.train, Split)
    data = Split(task.train.x.to(device), task.train.y.to(device))
    loss = weighted().to(device)
    return replace(task, train=data, validation=data, test=lambda: data, loss=loss)


def checked(task: Task, device: torch.device) -> str:
    """What is said of a task before it is trained on the device."""
    try:
        load_test(tried(as_task(task, "own"), device=device), device)
    except LrsearchError as error:
        return str(error)
    return "nothing"


def main() -> None:
    torch.set_num_threads(1)
    device = register()
    found: dict[str, Any] = {"refusals": refusals(device)}
    with tempfile.TemporaryDirectory() as folder:
        for name, case in CASES.items():
            file = Path(folder) / "state.pt"
            found[name] = {
                "cpu": train(replace(case, precision="fp32"), CPU, file),
                "device": train(case, device, file),
            }
        found["commands"] = commands(folder)
        tasks = {model.__name__: vectors(model) for model in (dense, Forgetful, There, on_top)}
        tasks["data"] = there(tasks["dense"], device)
        found["check"] = {name: checked(task, device) for name, task in tasks.items()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
