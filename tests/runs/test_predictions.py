"""Predictions that are not usable end a run: NaN as a failed record, bugs as errors that name the
method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from debiasbench import Method
from debiasbench.common.errors import PluginError
from debiasbench.core.objective import CrossEntropy
from debiasbench.records.store import Run
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests.conftest import ACME, ToyPlugin, offering
from tests.running import run


class Changed(CrossEntropy):
    """Changes the logits when it predicts."""

    change: Callable[[Tensor], Tensor]

    def predict(self, x: Any) -> Tensor:
        return self.change(self.network(x))


def nan(logits: Tensor) -> Tensor:
    return logits.index_fill(0, torch.tensor([len(logits) - 1]), float("nan"))


def excluded(logits: Tensor) -> Tensor:
    return logits.index_fill(1, torch.tensor([0]), -float("inf"))


def wider(logits: Tensor) -> Tensor:
    return torch.cat([logits, logits], 1)


def narrower(logits: Tensor) -> Tensor:
    return logits[:, :1]


def one_number(logits: Tensor) -> Tensor:
    return logits[:, 0]


def crashing(logits: Tensor) -> Tensor:
    raise IndexError("off by one")


def changed(change: Callable[[Tensor], Tensor], how: str) -> type[Method]:
    """Make a method whose objective predicts otherwise than it was trained."""

    @dataclass(frozen=True)
    class Changes(Method):
        def fit(self, lab: Any) -> Any:
            objective = Changed(lab.model())
            objective.change = change
            if how == "followed":  # by selection rules
                return lab.train(objective, name="train")
            trained = lab.train(objective, name="train", select=False)
            if how == "used":
                lab.predict(trained, "train")
            return trained if how == "stage" else trained.objective

    return Changes


def go(method: type[Method], folder: Path) -> Run:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(changes=method), ACME)])
    spec = make_spec(plugins, dataset="toy", method="changes", training={"epochs": 2})
    return run(spec, plugins, results=folder, data_root=folder)


@pytest.mark.parametrize("how", ["followed", "used", "stage", "network"])
def test_predictions_that_are_nan_are_a_failed_record(how: str, tmp_path: Path) -> None:
    record = go(changed(nan, how), tmp_path).record
    assert record.status == "failed"
    assert record.failure is not None
    assert (record.failure.kind, record.failure.stage) == ("NonFiniteLogits", "train")
    assert record.failure.step == (9 if how == "followed" else 19)
    assert record.failure.message.startswith("The network predicts NaN after step")
    assert record.outcomes == {}
    assert record.predictions is None


def test_a_class_that_is_never_predicted_may_have_an_infinite_logit(tmp_path: Path) -> None:
    record = go(changed(excluded, "followed"), tmp_path).record
    assert record.status == "ok"


@pytest.mark.parametrize("how", ["followed", "used", "stage", "network"])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (wider, r"have shape \(\d+, 4\), must be \(\d+, 2\), a logit for each class"),
        (narrower, r"have shape \(\d+, 1\), must be \(\d+, 2\)"),
        (one_number, r"have shape \(\d+,\), must be \(\d+, 2\)"),
        (crashing, "IndexError: off by one"),
    ],
)
def test_predictions_of_a_wrong_shape_and_errors_at_prediction_are_those_of_the_method(
    change: Any, complaint: str, how: str, tmp_path: Path
) -> None:
    with pytest.raises(PluginError, match=rf"method 'changes' of acme 1\.0 raised .*{complaint}"):
        go(changed(change, how), tmp_path)
    assert not list(tmp_path.glob("*.json"))
