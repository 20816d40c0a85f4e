"""The built-in tasks: their splits, their files, their models."""

from __future__ import annotations

import http.client
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

from lrsearch.errors import LrsearchError, UsageError
from lrsearch.files import results_folder
from lrsearch.storage.urls import parse_storage_url, sqlite_file
from lrsearch.tasks import TASKS, Normalize, Split, Task, builtin, datasets, load_task
from lrsearch.tasks.check import check
from lrsearch.tasks.images import Augment
from lrsearch.tasks.models import resnet9, resnet18, resnet20, square_net
from lrsearch.tasks.optimizers import usual_range
from lrsearch.tasks.splits import stratified_order
from lrsearch.tasks.task import auto_loss
from tests.datafiles import write_cifar10, write_fashion_mnist


@pytest.fixture
def cifar_dir(tmp_path: Path) -> Path:
    return write_cifar10(tmp_path / "data")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("network unreachable")

    monkeypatch.setattr("torchvision.datasets.utils.urllib.request.urlopen", refuse)
    monkeypatch.delenv("LRSEARCH_DATA_DIR", raising=False)


def as_set(split: Split) -> set[bytes]:
    return {row.contiguous().numpy().tobytes() for row in split.x}


# splits


@pytest.mark.parametrize("counts", [[50] * 10, [500, 100, 20, 7], [3, 1]])
def test_every_first_part_of_the_stratified_order_keeps_the_mix(counts: list[int]) -> None:
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    order = stratified_order(y[torch.randperm(len(y))])
    assert sorted(order.tolist()) == list(range(len(y)))
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]
    order = stratified_order(y)
    for k in range(1, len(y) + 1, 7):
        got = torch.bincount(y[order[:k]], minlength=len(counts)).double()
        want = k * torch.tensor(counts).double() / len(y)
        assert (got - want).abs().max() <= len(counts) / 2


def test_validation_shrinks_with_the_training_part_but_not_below_a_thousand() -> None:
    everything = Split(torch.zeros(50_000, 1), torch.arange(50_000) % 10)
    parts = [builtin._divide(everything, 5000, n) for n in (None, 45_000, 20_000, 8_000, 500)]
    sizes = [len(validation) for _, validation in parts]
    assert sizes == [5000, 5000, 5000, 2000, 1000]


def test_digits_has_three_disjoint_stratified_parts_and_is_the_same_each_time() -> None:
    task, again = load_task("digits"), load_task("digits")
    test = task.test()
    assert (len(task.train), len(task.validation), len(test)) == (1200, 300, 297)
    assert torch.equal(task.train.x, again.train.x)
    parts = [as_set(task.train), as_set(task.validation), as_set(test)]
    assert len(set.union(*parts)) == sum(len(part) for part in parts)
    for split in (task.train, task.validation, test):
        share = torch.bincount(split.y, minlength=10) / len(split)
        assert (share - 0.1).abs().max() < 0.01
    assert task.describe() == "mlp 9.0 k parameters, 1,200 train / 300 validation images"
    assert task.steps_per_epoch == 18


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    task = load_task("digits")
    theirs = {(bytes(p), int(y)) for p, y in zip((pixels).astype(np.uint8), labels, strict=True)}
    ours = {
        (bytes((x * 16).round().byte().numpy()), int(y))
        for split in (task.train, task.validation, task.test())
        for x, y in zip(split.x, split.y, strict=True)
    }
    assert ours == theirs


def test_a_smaller_part_of_digits_lies_inside_a_larger_one() -> None:
    small, large = load_task("digits", train_samples=100), load_task("digits", train_samples=400)
    assert torch.equal(small.train.x, large.train.x[:100])
    assert len(small.validation) == 300


def test_square_is_the_published_experiment() -> None:
    task = load_task("square")
    assert torch.allclose(task.train.x.squeeze(), torch.arange(1, 11) / 10)
    assert torch.allclose(task.validation.x.squeeze(), torch.arange(0.15, 1, 0.1))
    assert torch.allclose(task.validation.y, task.validation.x**2)
    assert not as_set(task.test()) & (as_set(task.train) | as_set(task.validation))
    assert (task.batch_size, task.epochs, task.validate_every) == (1, 2000, 20)
    outputs = task.validation.y + 0.1
    assert task.validation_loss is not None
    assert task.validation_loss(outputs, task.validation.y).item() == pytest.approx(9 * 0.01)
    kinds = [type(layer).__name__ for layer in square_net()]
    assert kinds == ["Linear", "Sigmoid"] * 4 + ["Linear", "ReLU"]
    assert task.parameters == 6 + 20 + 60 + 55 + 6


# files


def test_written_cifar_files_come_back_as_they_are(cifar_dir: Path) -> None:
    split = datasets.cifar10(cifar_dir, train=True)
    entries = [
        pickle.loads((cifar_dir / "cifar-10-batches-py" / f"data_batch_{i}").read_bytes())
        for i in range(1, 6)
    ]
    data = np.concatenate([entry["data"] for entry in entries]).reshape(-1, 3, 32, 32)
    assert np.array_equal(split.x.numpy(), data)
    assert split.y.tolist() == [label for entry in entries for label in entry["labels"]]


def test_cifar_task_splits_the_training_files_and_loads_test_late(cifar_dir: Path) -> None:
    task = load_task("cifar10", data_dir=cifar_dir)
    assert (len(task.train), len(task.validation)) == (180, 20)
    assert torch.bincount(task.validation.y).tolist() == [2] * 10
    everything = as_set(datasets.cifar10(cifar_dir, train=True))
    assert as_set(task.train) | as_set(task.validation) == everything
    assert not as_set(task.train) & as_set(task.validation)
    for split in (task.train, task.validation, task.test()):
        assert split.x.is_contiguous(memory_format=torch.channels_last)
    test_file = cifar_dir / "cifar-10-batches-py" / "test_batch"
    test_file.write_bytes(b"")
    load_task("cifar10", data_dir=cifar_dir)  # nobody opens it
    with pytest.raises(LrsearchError, match="test_batch is damaged"):
        task.test()


def test_data_dir_may_name_the_innermost_folder_or_come_from_the_environment(
    cifar_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = datasets.cifar10(cifar_dir / "cifar-10-batches-py", train=False)
    monkeypatch.setenv("LRSEARCH_DATA_DIR", str(cifar_dir))
    test = load_task("cifar10").test()
    assert torch.equal(inner.x, test.x)


def test_written_fashion_files_come_back_as_they_are(tmp_path: Path) -> None:
    root = write_fashion_mnist(tmp_path)
    from torchvision.datasets import FashionMNIST

    theirs = FashionMNIST(str(root), download=False)
    ours = datasets.fashion_mnist(root, train=True)
    assert torch.equal(ours.x.squeeze(1), theirs.data)
    assert torch.equal(ours.y, theirs.targets)
    task = load_task("fashion-mnist", data_dir=root)
    assert (len(task.train), len(task.validation), len(task.test())) == (110, 10, 20)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Harmful:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return print, ("code from a data file",)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "lacks data_batch_3"),
    "truncated": (_truncate, "data_batch_3 is damaged"),
    "empty": (lambda path: path.write_bytes(b""), "data_batch_3 is damaged"),
    "text": (lambda path: path.write_text("<html>"), "data_batch_3 is damaged"),
    "shape": (
        lambda path: path.write_bytes(
            pickle.dumps({"data": np.zeros((4, 9), np.uint8), "labels": [0] * 4})
        ),
        r"damaged \(data is \(4, 9\) uint8 with \(4,\) labels\)",
    ),
    "labels": (
        lambda path: path.write_bytes(
            pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]})
        ),
        r"data_batch_3 is damaged \(labels from 10 to 10\)",
    ),
    "code": (
        lambda path: path.write_bytes(pickle.dumps({"data": Harmful(), "labels": []})),
        "asks for builtins.print",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_cifar_files_are_named(
    cifar_dir: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = DAMAGE[kind]
    damage(cifar_dir / "cifar-10-batches-py" / "data_batch_3")
    with pytest.raises(LrsearchError, match=message) as error:
        load_task("cifar10", data_dir=cifar_dir)
    assert "--data-dir" in str(error.value)
    assert "\n" not in str(error.value)
    assert "code from a data file" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"\x00\x00\x08\x03" + b"\x00" * 7, "begin"),
        ("train-images-idx3-ubyte", b"PK\x03\x04" + b"\x00" * 20, "begin"),
        ("train-labels-idx1-ubyte", b"\x00\x00\x08\x01\x00\x00\x00\x05abc", "3 bytes of data"),
        ("train-labels-idx1-ubyte", b"\x00\x00\x08\x01\x00\x00\x00\x01\x01", "1 labels for 120"),
        (
            "train-labels-idx1-ubyte",
            b"\x00\x00\x08\x01\x00\x00\x00\x78" + b"\x0a" * 120,
            "labels from 10 to 10",
        ),
    ],
)
def test_damaged_fashion_files_are_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    write_fashion_mnist(tmp_path)
    (tmp_path / "FashionMNIST" / "raw" / name).write_bytes(content)
    with pytest.raises(LrsearchError, match=rf"{name} is damaged \(.*{message}"):
        load_task("fashion-mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "title", "layout"),
    [
        ("cifar10", "CIFAR-10", "cifar-10-batches-py/"),
        ("fashion-mnist", "Fashion-MNIST", "FashionMNIST/raw/"),
    ],
)
def test_no_data_and_no_network_is_one_line_that_says_what_to_do(
    tmp_path: Path, name: str, title: str, layout: str
) -> None:
    folder = tmp_path / "nothing"
    with pytest.raises(LrsearchError) as error:
        load_task(name, data_dir=folder)
    message = str(error.value)
    assert message.startswith(f"{title} is not in {folder}/ and could not be downloaded (")
    for word in (layout, "--data-dir", "--task digits"):
        assert word in message
    assert "\n" not in message
    assert not folder.exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (http.client.BadStatusLine("no HTTP"), "no HTTP"),
        (http.client.InvalidURL("nonnumeric port: 'x'"), "nonnumeric port: 'x'"),
        (ValueError("Invalid IPv6 URL"), "Invalid IPv6 URL"),
        (
            RuntimeError("Error downloading x:\nTried y, got:\n<urlopen error refused>\n"),
            "refused",
        ),
    ],
)
def test_whatever_a_proxy_does_is_one_line_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def download(folder: Path) -> None:
        raise error

    monkeypatch.setattr(datasets, "_download_fashion", download)
    with pytest.raises(LrsearchError, match=rf"could not be downloaded \({reason}\)\. Put "):
        load_task("fashion-mnist", data_dir=tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_another_process_has_ended_first_is_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(folder: Path) -> None:
        write_cifar10(folder)
        write_cifar10(tmp_path)

    monkeypatch.setattr(datasets, "_download_cifar", download)
    assert len(load_task("cifar10", data_dir=tmp_path).train) == 180
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-batches-py"]
    assert not any(path.is_dir() for path in (tmp_path / "cifar-10-batches-py").iterdir())


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_cifar10(tmp_path / "sets")
    assert len(load_task("cifar10", data_dir="~/sets").train) == 180
    monkeypatch.setenv("LRSEARCH_DATA_DIR", "~/sets")
    assert len(load_task("cifar10").train) == 180
    assert results_folder("~/out", "digits") == tmp_path / "out" / "digits"
    assert sqlite_file(parse_storage_url("sqlite:///~/runs.db")) == tmp_path / "runs.db"


def test_download_appears_whole_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def download(folder: Path) -> None:
        seen.append(folder)
        assert not (tmp_path / "cifar-10-batches-py").exists()
        write_cifar10(folder)

    monkeypatch.setattr(datasets, "_download_cifar", download)
    task = load_task("cifar10", data_dir=tmp_path)
    assert len(task.train) == 180
    assert len(seen) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-batches-py"]


def test_real_cifar_is_what_torchvision_reads(real_data: Path) -> None:
    from torchvision.datasets import CIFAR10

    theirs = CIFAR10(str(real_data), train=False, download=False)
    ours = datasets.cifar10(real_data, train=False)
    assert np.array_equal(ours.x.permute(0, 2, 3, 1).numpy(), theirs.data)
    assert ours.y.tolist() == theirs.targets
    task = load_task("cifar10", data_dir=real_data, train_samples=8000)
    assert torch.bincount(task.train.y).tolist() == [800] * 10
    assert torch.bincount(task.validation.y).tolist() == [200] * 10
    assert task.describe() == "convnet 0.15 M parameters, 8,000 train / 2,000 validation images"
    assert task.transform is not None
    images = task.transform(task.train.x)
    assert images.mean().abs() < 0.05
    assert abs(images.std().item() - 1) < 0.05


# names and numbers


def test_every_built_in_model_passes_its_dry_batch(cifar_dir: Path) -> None:
    write_fashion_mnist(cifar_dir)
    names = [(task, model) for task, spec in TASKS.items() for model in spec.models]
    assert len(names) == 8
    for name, model in names:
        if model != "resnet18":  # seconds; its shape is tested below
            task = load_task(name, model=model, data_dir=cifar_dir, batch_size=8)
            assert task.model_name == model
            check(task)


def test_resnets_have_the_published_sizes() -> None:
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert count(resnet20()) == 269_722  # He et al.: 0.27 M
    assert resnet20()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert count(resnet9()) == 6_573_120  # Page: 6.6 M
    assert resnet9()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    model = resnet18()
    assert count(model) == 11_173_962
    assert model.maxpool(model.conv1(torch.zeros(1, 3, 32, 32))).shape == (1, 64, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "digitz"}, "unknown task 'digitz' — did you mean digits"),
        ({"name": "digits", "model": "mpl"}, "unknown model of task digits 'mpl'"),
        ({"name": "digits", "batch_size": 0}, "--batch-size must be at least 1, got 0"),
        ({"name": "digits", "train_samples": 1201}, r"--train-samples must be 1 to 1,200"),
        ({"name": "digits", "train_samples": 0}, r"--train-samples must be 1 to 1,200, got 0"),
        ({"name": "square", "train_samples": 5}, "leave out --train-samples 5"),
    ],
)
def test_impossible_requests_name_the_rule(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_task(**arguments)  # type: ignore[arg-type]


def test_normalize_is_the_same_in_both_memory_formats() -> None:
    x = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    normalize = Normalize((0.1, 0.5, 0.9), (0.2, 0.3, 0.4))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.1, 0.5, 0.9), (0.2, 0.3, 0.4)))
    want = (x / 255 - mean) / std
    last = normalize(x.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(normalize(x), want, atol=1e-6)
    assert torch.allclose(last, want, atol=1e-6)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pickle.loads(pickle.dumps(normalize))(x), normalize(x))


@pytest.mark.parametrize("std", [(0.2, 0.0), (-0.2,), (float("nan"),), (float("inf"),)])
def test_normalize_refuses_a_std_that_is_none(std: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=r"each std above 0 and finite, got \("):
        Normalize((0.5,) * len(std), std)


@pytest.mark.parametrize("pad", [-1, 1.5, True, "4"])
def test_augment_refuses_a_pad_that_is_none(pad: Any) -> None:
    with pytest.raises(UsageError, match=f"pad must be a whole number from 0 up, got {pad!r}"):
        Augment(pad=pad)


def test_loss_and_metric_follow_the_targets() -> None:
    x = torch.zeros(4, 2)
    classes, floats = Split(x, torch.zeros(4).long()), Split(x, torch.zeros(4, 2))
    by_class = Task("a", square_net, classes, classes)
    by_value = Task("b", square_net, floats, floats)
    assert by_class.loss is torch.nn.functional.cross_entropy
    assert (by_class.metric_name, by_value.metric, by_value.metric_name) == ("accuracy", None, "")
    assert by_value.loss is torch.nn.functional.mse_loss
    assert by_value.loss is not auto_loss


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"validate_every": 0}, "validate_every must be at least 1"),
        ({"lr_range": (1.0, 0.1)}, "lr_range needs 0 < low < high, got 1 and 0.1"),
    ],
)
def test_a_task_refuses_numbers_out_of_range(change: dict[str, object], message: str) -> None:
    split = Split(torch.zeros(4, 1), torch.zeros(4, 1))
    with pytest.raises(UsageError, match=message):
        Task("t", square_net, split, split, **change)  # type: ignore[arg-type]


def test_a_split_refuses_lengths_that_differ() -> None:
    with pytest.raises(UsageError, match="one y for each x, got 3 x, 2 y"):
        Split(torch.zeros(3, 1), torch.zeros(2))
    with pytest.raises(UsageError, match="at least one sample"):
        Split(torch.zeros(0, 1), torch.zeros(0))


@pytest.mark.parametrize(
    ("rates", "given", "lr"),
    [
        ([1e-3, 2e-2], None, 2e-2),
        ([1e-3, 2e-2], 0.05, 0.05),
        ([1e-3, None], None, 0.1),
        ([None, None], None, 0.1),
        ([0.0, 0.0], None, 0.1),
        ([math.inf, 0.1], None, 0.1),
    ],
)
def test_the_usual_rate_of_groups_with_rates_of_their_own_is_the_highest_of_them(
    rates: list[float | None], given: float | None, lr: float
) -> None:
    def groups(model: nn.Module) -> list[dict[str, Any]]:
        found = zip(model.parameters(), rates, strict=True)
        return [{"params": [p]} | ({} if own is None else {"lr": own}) for p, own in found]

    split = Split(torch.randn(8, 3), torch.zeros(8, dtype=torch.long))
    more: Any = {} if given is None else {"lr": given}
    before = torch.get_rng_state()
    task = Task("mine", lambda: nn.Linear(3, 2), split, split, param_groups=groups, **more)
    assert task.lr == lr
    assert task.lr_range == usual_range("SGD", lr)
    assert torch.equal(torch.get_rng_state(), before)
