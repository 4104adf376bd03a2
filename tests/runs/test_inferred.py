"""What a method infers of the training samples is stored with the run, counted and verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from debiasbench.records.inference import judge
from debiasbench.records.store import Run, read_inferred
from debiasbench.records.verify import verify
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests.conftest import ACME, ToyPlugin
from tests.running import run

PLUGINS = Plugins([(ToyPlugin(), ACME)])


def go(folder: Path, method: str, **options: Any) -> Run:
    spec = make_spec(
        PLUGINS,
        dataset="toy",
        model="mlp",
        method=method,
        method_options=options,
        training={"epochs": 3, "batch_size": 16, "lr": 0.05},
    )
    return run(spec, PLUGINS, results=folder, data_root=folder)


@pytest.mark.parametrize("compat", ["none", "released"])
def test_jtt_infers_the_mistakes_of_its_first_stage(compat: str, tmp_path: Path) -> None:
    done = go(tmp_path, "jtt", compat=compat, identification_epochs=2)
    inferred = read_inferred(done.path, done.record)
    assert set(inferred) == {"y", "group", "conflict"}
    assert inferred["conflict"].dtype == bool
    assert done.record.inference is not None
    assert done.record.inference.stages == 1
    assert done.record.cost is not None
    assert len(done.record.cost.stages) == 2
    assert verify(done.path, done.record) == []


def test_lff_infers_the_final_weights_of_all_samples(tmp_path: Path) -> None:
    done = go(tmp_path, "lff")
    inferred = read_inferred(done.path, done.record)
    assert set(inferred) == {"y", "group", "scores"}
    assert inferred["scores"].dtype == np.float32
    assert inferred["scores"].min() >= 0
    assert inferred["scores"].max() <= 1
    assert done.record.inference is not None
    assert done.record.inference.stages == 1
    numbers = judge(done.record.inference, done.record.task.splits["train"])
    assert 0 <= numbers["auc"] <= 1
    assert verify(done.path, done.record) == []


def test_a_method_that_infers_nothing_stores_no_training_labels(tmp_path: Path) -> None:
    done = go(tmp_path, "erm")
    assert done.record.inference is None
    assert done.record.predictions is not None
    stored = load_file(tmp_path / done.record.predictions["file"])
    assert not [key for key in stored if key.startswith("train.")]
