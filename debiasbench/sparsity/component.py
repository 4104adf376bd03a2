"""Sparse training as a part of somebody else's loop: a stage begins, steps, and ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.sparsity.errors import SparsityError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from debiasbench.sparsity.attach import SparseTraining
    from debiasbench.sparsity.updater import Updater


class Sparsify:
    """Attaches an updater to the module and optimizer of each stage it is given to."""

    def __init__(self, updater: Updater) -> None:
        self.updater = updater
        self.training: SparseTraining | None = None

    @property
    def identity(self) -> str:
        """Say all that decides what this component does: equal ones train equal stages."""
        cls = type(self.updater)
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
        """Make `module` sparse for a stage; `masks` of an earlier stage are taken up again."""
        self.training = self.updater.attach(
            module,
            optimizer,
            total_steps=steps,
            steps_per_epoch=steps_per_epoch,
            seed=seed,
            masks=masks or None,
        )

    def before_step(self, step: int) -> None:
        """Empty inactive gradients before they are clipped; hooks do the rest."""
        self._attached().mask_gradients()

    def after_step(self, step: int) -> None:
        """Do nothing: the optimizer's hooks have."""

    def on_epoch_end(self, epoch: int) -> None:
        """Do nothing."""

    def on_end(self) -> None:
        """Let go of the optimizer; masks and counts stay readable."""
        self._attached().detach()

    def settled(self) -> bool:
        """Say whether the density is the one asked for: pruning and SNIP take a while."""
        return self._attached().settled

    def masks(self) -> dict[str, Tensor]:
        """Which weights are active, by parameter name."""
        return {name: mask.clone() for name, mask in self._attached().masks.items()}

    def densities(self) -> dict[str, float]:
        """Fraction of active weights by parameter name."""
        return self._attached().densities()

    def saved_flops(self, forward: Mapping[str, float]) -> float:
        """Training FLOPs a sample saved against dense, averaged over the steps."""
        return self._attached().saved_flops(forward)

    def state_dict(self) -> dict[str, object]:
        """Return all that is needed to go on after a restart."""
        return self._attached().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state again, after `on_start`."""
        self._attached().load_state_dict(state)

    def _attached(self) -> SparseTraining:
        if self.training is None:
            raise SparsityError("This component has not begun a stage: call on_start first")
        return self.training
