"""Sparse training as a component of a training stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.sparsity.attach import SparseTraining
from debiasbench.sparsity.errors import SparsityError
from debiasbench.sparsity.params import select

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from debiasbench.sparsity.updater import Updater


class Sparsify:
    """Makes the module of a stage sparse by an updater; see `debiasbench.Component`."""

    def __init__(self, updater: Updater) -> None:
        self.updater = updater
        self.training: SparseTraining | None = None

    @property
    def identity(self) -> str | None:
        """Text that determines what this component does; None if the updater is another package's.

        Components with equal texts train equal stages. Nothing tells what other code does.
        """
        cls = type(self.updater)
        if cls.__module__.partition(".")[0] != "debiasbench":
            return None
        return f"{cls.__module__}.{cls.__qualname__}: {self.updater}"

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

        A stage that trains more layers than the one before starts from new masks.
        """
        weights = select(module, include=self.updater.include, exclude=self.updater.exclude)
        covered = bool(masks) and weights.keys() <= masks.keys()
        self.training = SparseTraining(
            self.updater,
            module,
            optimizer,
            total_steps=steps,
            steps_per_epoch=steps_per_epoch,
            seed=seed,
            masks={name: masks[name] for name in weights} if covered else None,
            hooks=False,
        )

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
