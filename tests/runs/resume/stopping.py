"""Runs for these tests: stopped after some steps, compared, and their steps counted."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from debiasbench import Task, hookimpl
from debiasbench.common.errors import Interrupted
from debiasbench.common.progress import Progress
from debiasbench.records.record import Record
from debiasbench.records.store import Store, read_predictions
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.training import stage_store
from tests.conftest import ACME, Toy, ToyPlugin
from tests.running import run as run_spec


@dataclass(frozen=True)
class ByLast(Toy):
    """The toy data set, of whose runs the weights of the very last step are kept and compared."""

    def load(self, root: Path) -> Task:
        return replace(super().load(root), select="last")


class ByLastPlugin:
    @hookimpl
    def debiasbench_register_datasets(self, register: Callable[..., None]) -> None:
        register("by-last", ByLast)


PLUGINS = [(ToyPlugin(), ACME), (ByLastPlugin(), ACME)]


def run(*args: Any, **kwargs: Any) -> Any:
    """Run a spec and keep the weights, whose digest the record then holds."""
    return run_spec(*args, keep_weights=True, **kwargs)


def spec_of(plugins: Plugins, method: str, **more: Any) -> Any:
    settings: dict[str, Any] = {
        "dataset": "by-last",
        "model": "mlp",
        "training": {"epochs": 3},
    }
    return make_spec(plugins, method=method, **{**settings, **more})


def essence(record: Record, folder: Path) -> dict[str, Any]:
    """All of a record that training decides: not the seconds, nor when it was."""
    plain = asdict(record)
    cost = plain.pop("cost")
    plain.pop("provenance")
    timeless = ("parameters", "active_parameters", "density", "inference_flops", "training_flops")
    found = {k: v for k, v in plain.items() if k != "predictions"}
    found |= {k: cost[k] for k in timeless}
    found["stages"] = [
        {k: s[k] for k in ("name", "epochs", "steps", "flops")} for s in cost["stages"]
    ]
    assert record.weights is not None
    path = Store(folder).path(record.spec)
    for split in ("val", "test"):
        predicted = read_predictions(path, record, "last", split)
        found[split] = {name: values.tolist() for name, values in predicted.items()}
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


class Stopping(Progress):
    """A watcher that stops the run after some steps, by a signal."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, count: int = 1) -> None:
        before, self.left = self.left, self.left - count
        if before > 0 >= self.left:
            os.kill(os.getpid(), signal.SIGTERM)


def stopped(plugins: Plugins, results: Path, after: int = 12, **more: Any) -> Any:
    """Begin a run and stop it; return its spec."""
    spec = spec_of(plugins, "erm", **more)
    with pytest.raises(
        Interrupted, match=rf"in stage 'train' after {after} of 30 steps: run the same"
    ):
        run(
            spec,
            plugins,
            results=results,
            data_root=results,
            device="cpu",
            interruptible=True,
            progress=Stopping(after),
        )
    return spec


def checkpoints(results: Path) -> list[Path]:
    return sorted((results / stage_store.FOLDER).glob(f"*/{stage_store.RUNNING}*"))


def steps_taken(plugins: Plugins, spec: Any, results: Path) -> tuple[Record, int]:
    """Run a spec; return its record and the optimizer steps that were taken for it just now."""
    taken = []
    step = torch.optim.SGD.step

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        taken.append(1)
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", counting)
        done = run(spec, plugins, results=results, data_root=results, device="cpu")
    return done.record, len(taken)
