"""What a trained network gets right: the test split is read once, under every selection rule."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from debiasbench.records.metrics import accuracies
from debiasbench.records.record import Outcome, SplitResult
from debiasbench.records.selection import RULES
from debiasbench.records.store import prediction_key
from debiasbench.training.predict import hits
from debiasbench.training.rules import group_counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from debiasbench.core.data import Task
    from debiasbench.core.stage import Trained
    from debiasbench.core.view import HeldOut
    from debiasbench.training.predict import Predictor


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Outcomes by selection rule, and the labels and predicted classes they follow from."""

    outcomes: dict[str, Outcome]
    predictions: dict[str, NDArray[np.integer]]


def evaluate(trained: Trained, splits: Mapping[str, HeldOut], predictor: Predictor) -> Evaluation:
    """Predict "val" and "test", once for each set of weights that some rule kept."""
    predictions = {
        f"{name}.{label}": _compact(values)
        for name, split in splits.items()
        for label, values in split.view.labels.items()
    }
    outcomes: dict[str, Outcome] = {}
    results: dict[int, dict[str, SplitResult]] = {}  # by identity of the weights
    for rule in RULES:
        kept = trained.checkpoints.get(rule)
        if trained.checkpoints and kept is None:
            continue  # its metric was undefined throughout
        weights = id(kept.state) if kept else 0
        if weights not in results:
            if kept:
                trained.objective.load_state_dict(kept.state)
            results[weights] = {}
            for name, split in splits.items():
                logits = predictor.predict(trained.objective, split.view)
                right = hits(logits, split.view, len(split.totals))
                metrics = accuracies(group_counts(split, right))
                results[weights][name] = SplitResult(right, metrics)
                key = prediction_key(kept.epoch if kept else None)
                predictions[f"{name}.{key}"] = _compact(logits.argmax(1))
        outcomes[rule] = Outcome(
            epoch=kept.epoch if kept else None,
            value=kept.value if kept else math.nan,
            **results[weights],
        )
    return Evaluation(outcomes, predictions)


def serialised_weights(trained: Trained, task: Task) -> bytes:
    """Return the network under the data set's selection rule, with its shape, as safetensors."""
    from safetensors.torch import save

    if task.select in trained.checkpoints:
        trained.objective.load_state_dict(trained.checkpoints[task.select].state)
    state = trained.objective.network.state_dict()
    # one entry: safetensors writes several in any order, and equal runs give equal files
    shape = {"shape": json.dumps({"input": task.shape.input, "classes": task.shape.classes})}
    return save({n: v.detach().cpu().clone().contiguous() for n, v in state.items()}, shape)


def _compact(values: Tensor) -> NDArray[np.integer]:
    """Return labels in the smallest type that holds them."""
    array = values.cpu().numpy()
    return array.astype(np.min_scalar_type(int(array.max())))
