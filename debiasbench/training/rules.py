"""Follow the selection rules: validate after each epoch, and keep the weights that they select."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.common.errors import PredictionFailed
from debiasbench.core.stage import Checkpoint
from debiasbench.records.metrics import GroupCounts, accuracies
from debiasbench.records.selection import Tracker
from debiasbench.training.predict import check_shape, hits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from debiasbench.core.objective import Objective
    from debiasbench.core.view import HeldOut
    from debiasbench.training.predict import Predictor


class FollowedRules:
    """Validates after each epoch, and keeps the weights that each selection rule selects."""

    def __init__(self, predictor: Predictor, validation: HeldOut) -> None:
        self._predictor, self._validation = predictor, validation
        self._tracker = Tracker()
        self._states: dict[str, dict[str, Tensor]] = {}

    def measure(self, objective: Objective) -> Tensor:
        """Evaluate on the validation split; return what `follow` needs, on the device.

        It is (2 + G,) float64: 1 if a logit is NaN, the mean cross-entropy, and the correctly
        classified samples per group. Nothing waits for the device. Raises `ValueError` for logits
        of a wrong shape.
        """
        view, groups = self._validation.view, len(self._validation.totals)
        logits = self._predictor.predict(objective, view)
        check_shape(logits, len(view), len(self._validation.aligned))
        loss = F.cross_entropy(logits, view.labels["y"])
        seen = [logits.isnan().any()[None], loss[None], hits(logits, view, groups)]
        return torch.cat([value.double() for value in seen])

    def follow(
        self, objective: Objective, epoch: int, measured: Sequence[float], *, eligible: bool
    ) -> dict[str, float]:
        """Keep the weights if a rule selects them; return the mean cross-entropy and accuracies.

        Their names are "val_loss", "val_unbiased" and so on. `epoch`: from 1. `measured`: what
        `measure` returned. `eligible`: if False, only the rule `last` can select this epoch. Raises
        `PredictionFailed` for NaN.
        """
        failed, loss, *correct = measured
        if failed:
            raise PredictionFailed
        counts = group_counts(self._validation, [int(count) for count in correct])
        metrics = accuracies(counts)
        improved = self._tracker.update(epoch, metrics if eligible else {})
        if improved != ["last"]:
            self._states |= dict.fromkeys(improved, _copied_state(objective))
        return {"val_loss": loss} | {f"val_{name}": value for name, value in metrics.items()}

    def checkpoints(self, objective: Objective) -> dict[str, Checkpoint]:
        """Return the weights that each rule keeps; `last` keeps the current weights."""
        states = self._states | {"last": _copied_state(objective)}
        return {
            rule: Checkpoint(epoch, value, states[rule])
            for rule, (epoch, value) in self._tracker.best.items()
        }

    def state_dict(self) -> dict[str, object]:
        """Return everything that resuming needs."""
        return {"best": self._tracker.best, "states": self._states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self._tracker.best = dict(state["best"])
        device = self._validation.view.samples.device
        self._states = {
            rule: {name: value.to(device) for name, value in kept.items()}
            for rule, kept in state["states"].items()
        }


def group_counts(split: HeldOut, correct: Sequence[int]) -> GroupCounts:
    """Return the counts of a split's groups, of which `correct` (G,) samples are correct."""
    return GroupCounts.of(correct, split.totals, split.aligned, split.train_totals)


def _copied_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
