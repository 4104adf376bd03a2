"""A run in another process: killed, or busy with the spec that is asked for."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from debiasbench import Method
from debiasbench.common.errors import BusyError
from debiasbench.core.objective import CrossEntropy
from debiasbench.records.store import Run
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests import warm
from tests.conftest import ACME, ToyPlugin, offering
from tests.running import run

pytestmark = pytest.mark.slow

EPOCHS = 2  # the other process sets more


class Speaks(CrossEntropy):
    """Prints a line after 15 steps."""

    step = 0

    def forward(self, batch: Any) -> Any:
        self.step += 1
        if self.step == 15:
            print("training", file=sys.__stdout__, flush=True)  # a print in `fit` is for stderr
        return super().forward(batch)


@dataclass(frozen=True)
class Slow(Method):
    """Trains; in the other process, until it is killed."""

    def fit(self, lab: Any) -> Any:
        return lab.train(Speaks(lab.model()), epochs=EPOCHS, name="train")


def train(folder: Path) -> Run:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(slow=Slow), ACME)])
    spec = make_spec(plugins, dataset="toy", method="slow")
    return run(spec, plugins, results=folder, data_root=folder)


CODE = """
import sys
from pathlib import Path
from tests.runs import test_run_killed as this

this.EPOCHS = 100_000
this.train(Path(sys.argv[1]))
"""


@contextmanager
def training_elsewhere(results: Path) -> Iterator[warm.Process]:
    """Yield another process that has begun to train and does not end."""
    with warm.Process(CODE, results) as process:
        process.wait_for("training\n")
        yield process


def test_a_run_that_is_killed_leaves_no_record_and_nothing_in_the_way(tmp_path: Path) -> None:
    results = tmp_path / "results"
    with training_elsewhere(results) as process:
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert sorted(p.name for p in results.iterdir()) == [".locks", ".stages"]

    done = train(results)
    assert sorted(p.suffix for p in results.iterdir()) == ["", "", ".json", ".safetensors"]
    assert json.loads(done.path.read_text())["status"] == "ok"


def test_two_processes_on_one_spec_make_one_record(tmp_path: Path) -> None:
    results = tmp_path / "results"
    with (
        training_elsewhere(results),
        pytest.raises(BusyError, match="is being run by another process"),
    ):
        train(results)
    assert not list(results.glob("*.json"))
