"""What is exported computes the same, is smaller, and needs no debiasbench where that is said."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from debiasbench import Model, Shape, hookimpl
from debiasbench.common.errors import RecordError
from debiasbench.records.store import read
from debiasbench.runs.export import Kind, export, load_network
from debiasbench.sparsity import to_semi_structured, unpack_state
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests.conftest import ACME, ToyPlugin
from tests.running import run

Cli = Callable[..., Result]

WORDS = "run --method erm --dataset toy --model cnn --set model.width=8 --sparse rest:density=0.03"
RUN = (*WORDS.split(), "--device", "cpu", "--keep-weights")


@pytest.fixture
def record(debiasbench: Cli) -> Path:
    result = debiasbench(*RUN)
    assert result.exit_code == 0, result.output
    (path,) = Path("results").glob("*.json")
    return path


@pytest.mark.slow
def test_a_compacted_network_runs_without_debiasbench(record: Path, debiasbench: Cli) -> None:
    result = debiasbench("export", str(record), "--out", "small.pt2")
    assert result.exit_code == 0, result.output
    network, shape, _ = load_network(record, read(record), Plugins())
    total = sum(p.numel() for p in network.parameters())
    kept = int(result.stdout.split()[0].replace(",", ""))
    assert f"of {total:,} parameters" in result.stdout
    assert kept < 0.6 * total
    assert Path("small.pt2").stat().st_size < 4 * kept + 100_000
    x = torch.rand(5, *shape.input, generator=torch.Generator().manual_seed(0))
    save_file({"x": x}, "x.safetensors")
    code = (
        "import sys; sys.modules['debiasbench'] = None\n"
        "import torch, warnings; from safetensors.torch import load_file, save_file\n"
        "small = torch.export.load('small.pt2').module()\n"
        "parameters = sum(p.numel() for p in small.parameters())\n"
        "y = small(load_file('x.safetensors')['x'])\n"
        "save_file({'y': y.detach(), 'n': torch.tensor(parameters)}, 'y.safetensors')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    found = load_file("y.safetensors")
    assert int(found["n"]) == kept
    torch.testing.assert_close(found["y"], network(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("to", ["packed", "csr"])
def test_a_packed_network_comes_back_from_fewer_bytes(
    to: str, record: Path, debiasbench: Cli
) -> None:
    result = debiasbench("export", str(record), "--to", to)
    assert result.exit_code == 0, result.output
    assert ("faster as sparse matrices on this machine:" in result.stdout) == (to == "csr")
    path = record.with_name(f"{record.stem}.{to}.safetensors")
    assert str(path) in result.stdout
    weights = record.with_name(f"{record.stem}.weights.safetensors")
    assert path.stat().st_size < 0.5 * weights.stat().st_size
    state, _ = unpack_state(load_file(path))
    original = load_file(weights)
    assert all(torch.equal(state[name], value) for name, value in original.items())


def test_a_run_whose_weights_were_not_kept_is_run_again_for_them(debiasbench: Cli) -> None:
    without = RUN[:-1]
    debiasbench(*without)
    (path,) = Path("results").glob("*.json")
    before = json.loads(path.read_text())
    result = debiasbench("export", str(path))
    assert result.exit_code == 9
    assert "run its spec again with --keep-weights" in result.stderr
    assert "Already done" not in debiasbench(*RUN).stdout
    after = json.loads(path.read_text())
    assert after["outcomes"] == before["outcomes"]
    assert "Already done" in debiasbench(*RUN).stdout
    assert "Already done" in debiasbench(*without).stdout


def test_weights_that_were_changed_are_refused(record: Path, debiasbench: Cli) -> None:
    weights = record.with_name(f"{record.stem}.weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    result = debiasbench("export", str(record))
    assert result.exit_code == 9
    assert "is not the file that" in result.stderr
    weights.unlink()
    assert "cannot be read" in debiasbench("export", str(record)).stderr


def test_kept_weights_are_those_of_the_selected_epoch(record: Path) -> None:
    done = read(record)
    assert done.weights is not None
    assert done.weights["rule"] == done.task.select
    network, _, _ = load_network(record, done, Plugins())
    assert sum(int((p != 0).sum()) for p in network.parameters()) < 0.2 * sum(
        p.numel() for p in network.parameters()
    )


@dataclass(frozen=True)
class WeightNorm(Model):
    """A network with a weight that a hook computes."""

    def build(self, shape: Shape) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            hidden = nn.utils.weight_norm(nn.Linear(math.prod(shape.input), 8))
        return nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(8, shape.classes))


class Caching(nn.Sequential):
    """Computes a scale once in evaluation mode, and keeps it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.scale, self.kept = nn.Parameter(torch.ones(1)), dict[str, Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return y * (self.scale * 2 if self.training else self.kept.setdefault("2", self.scale * 2))


@dataclass(frozen=True)
class Cached(Model):
    """A network that caches a tensor in evaluation mode."""

    def build(self, shape: Shape) -> nn.Module:
        width = math.prod(shape.input)
        return Caching(nn.Flatten(), nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, shape.classes))


@dataclass(frozen=True)
class Wide(Model):
    """A network with a layer that has the sizes of 2:4 kernels."""

    def build(self, shape: Shape) -> nn.Module:
        first, last = nn.Linear(math.prod(shape.input), 64), nn.Linear(64, shape.classes)
        return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), last)


class OwnModels:
    @hookimpl
    def debiasbench_register_models(self, register: Any) -> None:
        register("wide", Wide)
        register("weight-norm", WeightNorm)
        register("cached", Cached)


OWN = Plugins([(ToyPlugin(), ACME), (OwnModels(), ACME)])


def trained(model: str, folder: Path, **more: Any) -> Path:
    spec = make_spec(OWN, method="erm", dataset="toy", model=model, training={"epochs": 1}, **more)
    return run(spec, OWN, results=folder, data_root=folder, keep_weights=True).path


@pytest.mark.filterwarnings("ignore:The tensor attribute:UserWarning")
def test_a_network_that_caches_tensors_is_exported_in_all_forms(tmp_path: Path) -> None:
    record = trained("cached", tmp_path)
    kinds: tuple[Kind, ...] = ("compact", "packed", "csr")
    for to in kinds:
        assert export(record, OWN, to=to).difference < 1e-5


def test_a_weight_that_a_hook_computes_is_named_and_packing_needs_no_change(tmp_path: Path) -> None:
    record = trained("weight-norm", tmp_path)
    kinds: tuple[Kind, ...] = ("compact", "csr")
    for to in kinds:
        with pytest.raises(RecordError, match=r"1\.weight is computed by a hook .* --to packed"):
            export(record, OWN, to=to)
    assert export(record, OWN, to="packed").difference == 0


def test_a_2_to_4_network_is_packed_and_timed_with_the_layers_that_are_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"pattern": "2:4", "density": 0.5, "include": ("network.3.weight",)}
    record = trained("wide", tmp_path, sparse="rigl", sparse_options=options)
    stand_in = partial(to_semi_structured, convert=Tensor.clone, choose=lambda *_: True)
    monkeypatch.setattr("debiasbench.runs.export.to_semi_structured", stand_in)
    done = export(record, OWN, to="2:4")
    assert done.layers == ("3.weight",)
    assert done.path == record.with_name(f"{record.stem}.2to4.safetensors")
    assert 0 < done.difference < 0.01  # half precision
    assert min(done.milliseconds) > 0
    packed = export(record, OWN, to="packed")
    assert done.path.read_bytes() == packed.path.read_bytes()
    wrong = partial(to_semi_structured, convert=lambda w: w + 1)
    monkeypatch.setattr("debiasbench.runs.export.to_semi_structured", wrong)
    with pytest.raises(RecordError, match=r"3.weight would compute something else"):
        export(record, OWN, to="2:4")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine may have 2:4 kernels")
def test_a_machine_without_2_to_4_kernels_is_refused_and_nothing_is_written(
    record: Path, debiasbench: Cli
) -> None:
    before = sorted(record.parent.iterdir())
    result = debiasbench("export", str(record), "--to", "2:4")
    assert result.exit_code == 9
    message = " ".join(result.stderr.split())
    assert "2:4 kernels need an NVIDIA GPU of compute capability 8.0 or newer" in message
    assert "this network is on cpu" in message
    assert "--to packed does not need this" in message
    assert sorted(record.parent.iterdir()) == before
