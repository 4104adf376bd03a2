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
from debiasbench.training.capture import evaluated
from debiasbench.training.predict import check_shape, hits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from debiasbench.common.randomness import Randomness
    from debiasbench.core.objective import Objective
    from debiasbench.core.view import HeldOut
    from debiasbench.training.graph import Graph, Replays
    from debiasbench.training.predict import Predictor


class FollowedRules:
    """Validates after each epoch, and keeps the weights that each selection rule selects.

    `new_graph`: see `debiasbench.training.graph.Replays`, which computes the evaluation.
    """

    def __init__(
        self,
        predictor: Predictor,
        validation: HeldOut,
        new_graph: Callable[[], Graph] | None = None,
    ) -> None:
        self._predictor, self._validation = predictor, validation
        self._new_graph = new_graph if validation.view.samples.resident else None
        self._pass: tuple[_Pass, Replays] | None = None
        self._tracker = Tracker()
        self._states: dict[str, dict[str, Tensor]] = {}

    def measure(self, objective: Objective, random: Randomness) -> Tensor:
        """Evaluate on the validation split; return what `follow` needs, on the device.

        It is (2 + G,) float64: 1 if a logit is NaN, the mean cross-entropy, and the correctly
        classified samples per group. Nothing waits for the device, and the next call overwrites
        it. Raises `ValueError` for logits of a wrong shape. `random`: of the stage, always the
        same, as the objective is.
        """
        if self._pass is None:
            one = _Pass(objective, self._predictor, self._validation, random)
            self._pass = one, evaluated(one, objective, self._new_graph)
        one, replays = self._pass
        for error in replays.compute((len(self._validation.view),)).values():
            raise error
        return one.result

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
        tracker = self._tracker
        return {"best": tracker.best, "unbiased": tracker.unbiased, "states": self._states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self._tracker.best, self._tracker.unbiased = dict(state["best"]), dict(state["unbiased"])
        device = self._validation.view.samples.device
        self._states = {
            rule: {name: value.to(device) for name, value in kept.items()}
            for rule, kept in state["states"].items()
        }


class _Pass:
    """One evaluation on the validation split, which a graph can repeat; `result`: see `measure`."""

    def __init__(
        self, objective: Objective, predictor: Predictor, split: HeldOut, random: Randomness
    ) -> None:
        self._objective, self._predictor, self._split = objective, predictor, split
        self.random = random
        device = split.view.samples.device
        self.result = torch.zeros(2 + len(split.totals), dtype=torch.double, device=device)

    def compute(self) -> None:
        """Predict all samples, and write the result."""
        split, view = self._split, self._split.view
        logits = self._predictor.predict(self._objective, view)
        check_shape(logits, len(view), len(split.aligned))
        loss = F.cross_entropy(logits, view.labels["y"])
        seen = [logits.isnan().any()[None], loss[None], hits(logits, view, len(split.totals))]
        self.result.copy_(torch.cat([value.double() for value in seen]))

    def changed(self) -> list[Tensor]:
        """Return the result."""
        return [self.result]

    @property
    def generators(self) -> list[torch.Generator]:
        """Return none: samples are not augmented."""
        return []


def group_counts(split: HeldOut, correct: Sequence[int]) -> GroupCounts:
    """Return the counts of a split's groups, of which `correct` (G,) samples are correct."""
    return GroupCounts.of(correct, split.totals, split.aligned, split.train_totals)


def _copied_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
