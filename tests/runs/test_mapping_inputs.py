"""Inputs that are several tensors by name: through the cache, training, prediction and a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from debiasbench import Dataset, Model, Shape, Split, Task, hookimpl
from debiasbench.common.errors import DataError, PluginError
from debiasbench.core.inputs import tensors
from debiasbench.files import task_cache, task_folder
from debiasbench.measure.bench import bench
from debiasbench.runs.session import Session
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.testing import check_dataset
from debiasbench.training import placed
from tests.conftest import ACME
from tests.running import run

LENGTH, WORDS = 6, 11


def sentences(n: int, conflicting: float, rng: torch.Generator) -> Split:
    """The class is which of two words comes first, the bias how long the sentence is."""
    y = torch.arange(n) % 2
    bias = torch.where(torch.rand(n, generator=rng) < conflicting, 1 - y, y)
    bias[:4], y[:4] = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    ids = torch.randint(3, WORDS, (n, LENGTH), generator=rng)
    ids[:, 0] = 1 + y
    mask = torch.arange(LENGTH) < (3 + 3 * bias)[:, None]
    return Split({"ids": ids, "mask": mask}, y, bias, 2)


@dataclass(frozen=True)
class Sentences(Dataset):
    """Token ids and a mask."""

    training = {"epochs": 4, "batch_size": 16, "lr": 0.3}  # noqa: RUF012 - as plugins write it
    model = "tokens"

    def load(self, root: Path) -> Task:
        rng = torch.Generator().manual_seed(0)
        splits = (sentences(160, 0.2, rng), sentences(40, 0.5, rng), sentences(80, 0.5, rng))
        return Task(*splits, ("a", "b"), ("short", "long"), torch.eye(2, dtype=torch.bool))


class Bag(nn.Module):
    """The mean of the embeddings that the mask shows, and two linear layers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 16)
        self.hidden = nn.Linear(16, 8)
        self.fc = nn.Linear(8, classes)

    def forward(self, x: dict[str, torch.Tensor]) -> Any:
        mask = x["mask"].float()[:, :, None]
        mean = (self.embed(x["ids"]) * mask).sum(1) / mask.sum(1)
        return self.fc(torch.relu(self.hidden(mean)))


@dataclass(frozen=True)
class Tokens(Model):
    """Reads token ids and their mask."""

    def build(self, shape: Shape) -> nn.Module:
        assert shape.inputs == {"ids": (LENGTH,), "mask": (LENGTH,)}
        assert shape.features == 2 * LENGTH
        return Bag(shape.classes)


class TextPlugin:
    """Offers both."""

    @hookimpl
    def debiasbench_register_datasets(self, register: Callable[..., None]) -> None:
        register("sentences", Sentences)

    @hookimpl
    def debiasbench_register_models(self, register: Callable[..., None]) -> None:
        register("tokens", Tokens)


@pytest.fixture
def plugins() -> Plugins:
    return Plugins([(TextPlugin(), ACME)])


@pytest.mark.parametrize("method", ["erm", "groupdro", "lff", "dfr", "rest"])
def test_methods_train_on_named_inputs_and_leave_a_record(
    plugins: Plugins, tmp_path: Path, method: str
) -> None:
    options = {"density": 0.3} if method == "rest" else {}
    spec = make_spec(plugins, method=method, dataset="sentences", method_options=options)
    record = run(spec, plugins, results=tmp_path, data_root=tmp_path).record
    assert record.status == "ok"
    assert record.outcomes["last"].test.metrics["average"] > 0.8
    assert record.cost is not None
    linear = 2 * (16 * 8 + 8 * 2)  # FLOPs of the two linear layers; a table look-up has none
    kept = 1.0 if method != "rest" else record.cost.density
    assert record.cost.inference_flops == pytest.approx(linear * kept, rel=0.2)


def test_streamed_and_parted_batches_of_named_inputs_give_the_same_weights(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(folder: str, **training: Any) -> Any:
        spec = make_spec(plugins, method="erm", dataset="sentences", training=training)
        done = run(spec, plugins, results=tmp_path / folder, data_root=tmp_path, keep_weights=True)
        return done.record.weights["sha256"]  # type: ignore[index]

    whole = weights("whole")
    assert weights("parts", micro_batch=16) == whole
    monkeypatch.setattr(placed, "fits", lambda _x, _device: False)
    assert weights("streamed") == whole


def test_a_task_of_named_inputs_comes_back_from_its_folder(tmp_path: Path) -> None:
    task = Sentences().load(tmp_path)
    task_folder.save(task, tmp_path)
    again = task_folder.load(tmp_path)
    assert again.fingerprint() == task.fingerprint()
    assert list(tensors(again.train.x)) == ["ids", "mask"]
    (tmp_path / "val-x-1.npy").write_bytes(b"damaged")
    with pytest.raises(task_folder.DamagedTask, match=r"val-x-1\.npy"):
        task_folder.load(tmp_path)


def test_the_cache_keeps_named_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "sentences.txt"
    source.write_text("x")
    monkeypatch.setattr(Sentences, "sources", lambda self, root: [source])
    first = task_cache.load("sentences", Sentences(), tmp_path)
    monkeypatch.setattr(Sentences, "load", lambda self, root: pytest.fail("it was not cached"))
    assert task_cache.load("sentences", Sentences(), tmp_path).fingerprint() == first.fingerprint()


@pytest.mark.slow
def test_bench_measures_named_inputs(plugins: Plugins) -> None:
    spec = make_spec(plugins, method="erm", dataset="sentences")
    measured = bench(Session(plugins, device="cpu"), spec, steps=2, rounds=1, workers=0)
    assert set(measured.training) == {"engine", "bare"}


def test_a_model_of_images_is_told_the_shapes_that_do_not_fit(
    plugins: Plugins, tmp_path: Path
) -> None:
    spec = make_spec(plugins, method="erm", dataset="sentences", model="cnn")
    with pytest.raises(PluginError, match=r"does not fit samples of shape \{'ids': \(6,\), 'mask'"):
        run(spec, plugins, results=tmp_path, data_root=tmp_path)


def test_the_checks_of_plugins_take_named_inputs(tmp_path: Path) -> None:
    check_dataset(Sentences(), tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mean": (0.5,)}, "mean needs inputs that are one tensor"),
        ({"augment": lambda x, _: x}, "augment needs inputs that are one tensor"),
    ],
)
def test_what_only_images_have_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        replace(Sentences().load(Path()), **change)


def test_a_mapping_whose_tensors_contradict_each_other_is_refused() -> None:
    task = Sentences().load(Path())
    ids, mask = task.val.x["ids"], task.val.x["mask"]  # type: ignore[index]
    for x, complaint in (
        ({"ids": ids}, "differ from the training samples"),
        ({"ids": ids, "mask": mask[:-1]}, r"has 39 x\['mask'\] and 40 y values"),
        ({"ids": ids.double(), "mask": mask}, r"x\['ids'\] is float64"),
        ({}, "empty mapping"),
    ):
        with pytest.raises(DataError, match=complaint):
            replace(task, val=replace(task.val, x=x))
