"""Evaluate what a run gave: its network for every selection rule, and what its method inferred."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from debiasbench.records.inference import INFERRED, Inference, count
from debiasbench.records.metrics import accuracies
from debiasbench.records.record import Selected, SplitResult
from debiasbench.records.selection import RULES
from debiasbench.records.store import prediction_key
from debiasbench.training.predict import check_logits, hits
from debiasbench.training.rules import group_counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from debiasbench.core.data import Task
    from debiasbench.core.inferred import Inferred
    from debiasbench.core.stage import Trained
    from debiasbench.core.view import HeldOut
    from debiasbench.records.beside import Predictions
    from debiasbench.training.predict import Predictor

O = TypeVar("O", bound=Selected)  # noqa: E741 - of a record, or of a trial


@dataclass(frozen=True, eq=False)
class Evaluation(Generic[O]):
    """Outcomes by selection rule, and the labels and predicted classes behind them."""

    outcomes: dict[str, O]
    predictions: dict[str, NDArray[np.integer]]


def evaluate(
    trained: Trained, splits: Mapping[str, HeldOut], predictor: Predictor, kind: type[O]
) -> Evaluation[O]:
    """Predict all splits, once for each set of weights that a selection rule keeps.

    `splits`: those of which an outcome of this `kind` has results. Raises errors as `check_logits`
    does.
    """
    predictions = {
        f"{name}.{label}": _compact(values)
        for name, split in splits.items()
        for label, values in split.view.labels.items()
    }
    outcomes: dict[str, O] = {}
    results: dict[int, dict[str, SplitResult]] = {}  # by identity of the weights
    for rule in RULES:
        kept = trained.checkpoints.get(rule)
        if trained.checkpoints and kept is None:
            continue  # the metric of this rule was undefined in all epochs
        weights = id(kept.state) if kept else 0
        if weights not in results:
            if kept:
                trained.objective.load_state_dict(kept.state)
            results[weights] = {}
            for name, split in splits.items():
                logits = predictor.predict(trained.objective, split.view)
                check_logits(logits, len(split.view), len(split.aligned))
                correct = hits(logits, split.view, len(split.totals)).tolist()
                metrics = accuracies(group_counts(split, correct))
                results[weights][name] = SplitResult(correct, metrics)
                key = prediction_key(kept.epoch if kept else None)
                predictions[f"{name}.{key}"] = _compact(logits.argmax(1))
        outcomes[rule] = kind(
            epoch=kept.epoch if kept else None,
            value=kept.value if kept else math.nan,
            **results[weights],
        )
    return Evaluation(outcomes, predictions)


def judged(inferred: Inferred, stages: int, task: Task) -> tuple[Inference, Predictions]:
    """Count what a method inferred of the training samples; return it with what it follows from.

    `stages`: number of training stages that had ended when the method declared it.
    """
    columns = {
        name: _compact(values) if name == "groups" else values.numpy()
        for name, values in inferred.columns.items()
    }
    labels = {"y": _compact(task.train.y), "group": _compact(task.train.group)}
    inference = count(columns, labels["group"], task.aligned.numpy(), stages)
    return inference, {
        **{f"train.{name}": values for name, values in labels.items()},
        **{INFERRED + name: values for name, values in columns.items()},
    }


def serialised_weights(trained: Trained, task: Task) -> bytes:
    """Return the weights that the data set's selection rule keeps, with the shape of inputs.

    The format is safetensors.
    """
    from safetensors.torch import save

    if task.select in trained.checkpoints:
        trained.objective.load_state_dict(trained.checkpoints[task.select].state)
    state = trained.objective.network.state_dict()
    # a single entry, since safetensors writes several in random order, and files would differ
    facts: dict[str, object] = {"input": task.shape.input, "classes": task.shape.classes}
    if task.shape.inputs:
        facts["inputs"] = task.shape.inputs
    shape = {"shape": json.dumps(facts)}
    return save({n: v.detach().cpu().clone().contiguous() for n, v in state.items()}, shape)


def _compact(values: Tensor) -> NDArray[np.integer]:
    """Return labels in the smallest sufficient integer type."""
    array = values.cpu().numpy()
    return array.astype(np.min_scalar_type(int(array.max())))
