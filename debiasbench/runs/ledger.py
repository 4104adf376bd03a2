"""`Ledger`: results of a method's stages, before the method could change them; and inferences."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from debiasbench.common.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from debiasbench.core.inferred import Inferred
    from debiasbench.core.stage import StageCost, Trained


class Ledger:
    """Gives a method the results of its stages, and keeps them and what the method inferred.

    `with_checkpoints`: whether the method may see which weights the selection rules keep, and
    their metrics, since these are results on the validation split.
    """

    def __init__(self, *, with_checkpoints: bool) -> None:
        self._with_checkpoints = with_checkpoints
        self.stages: list[Trained] = []
        self.inferred: Inferred | None = None  # of the training samples
        self.inferred_after = 0  # stages
        self._given: list[Trained] = []
        self._versions: list[list[int]] = []

    def given(self, trained: Trained) -> Trained:
        """Add the result of a stage; return what the method gets of it."""
        given = replace(
            trained,
            checkpoints=dict(trained.checkpoints) if self._with_checkpoints else {},
            densities=dict(trained.densities),
            masks=dict(trained.masks),
            curves={},  # validation metrics
        )
        self.stages.append(trained)
        self._given.append(given)
        self._versions.append(_versions(trained))
        return given

    def kept(self, result: Trained, owner: str) -> Trained:
        """Return the stage behind a result that a method returns; raises `PluginError`."""
        index = next((i for i, given in enumerate(self._given) if given is result), None)
        if index is None:
            raise PluginError(
                f"{owner} returned a Trained that lab.train did not return, so nothing shows that "
                "its checkpoints come from training: return the result of lab.train, or a network"
            )
        trained = self.stages[index]
        last = trained.checkpoints.get("last")
        state = trained.objective.state_dict()
        changed = last is not None and not _equal(state, last.state)
        if changed or _versions(trained) != self._versions[index]:
            raise PluginError(
                f"{owner} changed weights after lab.train and then returned the stage, whose "
                "checkpoints do not have this change: return the network instead, which is "
                "stage.objective.network"
            )
        return trained

    @property
    def costs(self) -> tuple[StageCost, ...]:
        """The costs of all stages."""
        return tuple(stage.cost for stage in self.stages if stage.cost is not None)


def last_step(costs: Sequence[StageCost]) -> tuple[str, int]:
    """Return the name of the last stage, and the number of its last step; ("", 0) without one."""
    return (costs[-1].name, costs[-1].steps - 1) if costs else ("", 0)


def _equal(state: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> bool:
    """Return whether a network still has the names, types, devices and values of its weights."""
    return state.keys() == kept.keys() and all(
        (now.dtype, now.device) == (kept[name].dtype, kept[name].device)
        and torch.equal(now, kept[name])
        for name, now in state.items()
    )


def _versions(trained: Trained) -> list[int]:
    """Return how often each tensor of the checkpoints was changed in place."""
    return [v._version for kept in trained.checkpoints.values() for v in kept.state.values()]
