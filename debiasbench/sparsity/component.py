"""Sparse training as a component of a training stage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from debiasbench.sparsity.attach import SparseTraining
from debiasbench.sparsity.errors import SparsityError, unknown
from debiasbench.sparsity.guards import check_pattern
from debiasbench.sparsity.masks import digest
from debiasbench.sparsity.params import layouts, select

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from debiasbench.sparsity.updater import Updater


class Sparsify:
    """Makes the module of a stage sparse by an updater; see `debiasbench.Component`.

    `masks`: bool masks to begin with, by parameter name of the objective, such as
    "network.1.weight". They replace the updater's density and the masks of an earlier stage. Layers
    without a mask begin dense. `Sparsify(Static(), masks)` trains a fixed part of a network.
    """

    def __init__(self, updater: Updater, masks: Mapping[str, Tensor] | None = None) -> None:
        self.updater = updater
        self.given = None if masks is None else _checked(masks)
        self.training: SparseTraining | None = None

    @property
    def identity(self) -> str | None:
        """Text that determines what this component does; None if the updater is another package's.

        Components with equal texts train equal stages. Nothing tells what other code does.
        """
        cls = type(self.updater)
        if cls.__module__.partition(".")[0] != "debiasbench":
            return None
        masks = "" if self.given is None else f", masks {digest(self.given)}"
        return f"{cls.__module__}.{cls.__qualname__}: {self.updater}{masks}"

    def on_start(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        *,
        steps: int,
        steps_per_epoch: int,
        seed: int,
        masks: Mapping[str, Tensor],
    ) -> None:
        """Make `module` sparse for a stage, from the masks of an earlier stage if they cover it.

        A stage that trains more layers than the one before starts from new masks. Raises
        `SparsityError` for given masks that do not fit the module or the updater.
        """
        weights = select(module, include=self.updater.include, exclude=self.updater.exclude)
        first = None
        if self.given is not None:
            first = self._completed(self.given, weights)
            check_pattern(self.updater, first, layouts(module))
        elif masks and weights.keys() <= masks.keys():
            first = {name: masks[name] for name in weights}
        self.training = SparseTraining(
            self.updater,
            module,
            optimizer,
            total_steps=steps,
            steps_per_epoch=steps_per_epoch,
            seed=seed,
            masks=first,
            hooks=False,
        )

    def _completed(
        self, given: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter]
    ) -> dict[str, Tensor]:
        """Return the given masks, and masks of ones for layers that have none."""
        for name in given:
            if name not in weights:
                raise unknown("layer with a mask", name, weights)
        updater, kind = self.updater, type(self.updater).__name__
        masks = {
            name: given.get(name, torch.ones_like(p, dtype=torch.bool, requires_grad=False))
            for name, p in weights.items()
        }
        active = {name: int(mask.sum()) for name, mask in masks.items()}
        if updater.changes and (empty := [name for name, count in active.items() if not count]):
            raise SparsityError(
                f"The mask of {empty[0]} keeps no weight, so {kind} has none to exchange: keep one "
                "at least, or use Static"
            )
        density = sum(active.values()) / sum(p.numel() for p in weights.values())
        begins = updater.first_density()
        if updater.prunes and not math.isclose(density, begins, rel_tol=0.05):
            raise SparsityError(
                f"The masks keep {density:.4g} of all weights, but {kind} begins with "
                f"{begins:.4g}: set initial_density={density:.4g}, and a density that is not larger"
            )
        return masks

    def due(self, step: int) -> bool:
        """Return whether the topology changes after this step (from 0)."""
        return self._started().due(step)

    @property
    def update_replaces_step(self) -> bool:
        """Whether the updater's updates take the place of an optimizer step."""
        return self.updater.update_replaces_step

    def constrain_gradients(self, *, update_follows: bool) -> None:
        """Set inactive gradients to 0; keep those that the update reads."""
        self._started().constrain_gradients(update_follows=update_follows)

    def constrain_weights(self) -> None:
        """Set inactive weights to 0."""
        self._started().constrain_weights()

    def update(self, step: int) -> None:
        """Change the topology."""
        self._started().update(step)

    def on_epoch_end(self, epoch: int) -> None:
        """Do nothing."""

    def on_end(self) -> None:
        """Do nothing: masks and counts stay readable."""

    def settled(self) -> bool:
        """Return whether the density is the one asked for: pruning and SNIP take a while."""
        return self._started().settled

    def masks(self) -> dict[str, Tensor]:
        """Return a copy of the masks by parameter name."""
        return {name: mask.clone() for name, mask in self._started().masks.items()}

    def densities(self) -> dict[str, float]:
        """Return the fraction of active weights by parameter name."""
        return self._started().densities()

    def saved_flops(self, forward: Mapping[str, float]) -> float:
        """Return training FLOPs per sample saved against dense, averaged over the steps."""
        return self._started().saved_flops(forward)

    def state_dict(self) -> dict[str, object]:
        """Return everything that resuming needs."""
        return self._started().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state, after `on_start`."""
        self._started().load_state_dict(state)

    def _started(self) -> SparseTraining:
        if self.training is None:
            raise SparsityError("This component has not started a stage: call on_start first")
        return self.training


def _checked(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of masks, which the caller may change; raises `SparsityError`."""
    if not masks:
        raise SparsityError("masks has no mask: give one for a layer at least, or None")
    for name, mask in masks.items():
        if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
            kind = mask.dtype if isinstance(mask, torch.Tensor) else type(mask).__name__
            raise SparsityError(f"The mask of {name} must be a bool tensor, not {kind}")
    return {name: mask.detach().clone() for name, mask in masks.items()}
