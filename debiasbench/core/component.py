"""`Component`: constrains gradients and weights around the optimizer step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn
    from torch.optim import Optimizer


class ComponentLike(Protocol):
    """What a stage needs of a component: every attribute of `Component`, of any class."""

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
        """Begin a stage."""

    def due(self, step: int) -> bool:
        """Return whether `update` must follow step `step`."""

    @property
    def update_replaces_step(self) -> bool:
        """Whether the optimizer leaves weights unchanged in a step that `update` follows."""

    def constrain_gradients(self, *, update_follows: bool) -> None:
        """Change gradients."""

    def constrain_weights(self) -> None:
        """Change weights."""

    def update(self, step: int) -> None:
        """Change the constraint."""

    def on_epoch_end(self, epoch: int) -> None:
        """Act after an epoch."""

    def on_end(self) -> None:
        """Release the module and the optimizer."""

    def state_dict(self) -> dict[str, object]:
        """Return everything that resuming needs."""

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore a state."""

    def settled(self) -> bool:
        """Return whether the network has reached the requested density."""

    def masks(self) -> dict[str, Tensor]:
        """Return masks of active weights."""

    def densities(self) -> dict[str, float]:
        """Return the fraction of active weights."""

    def saved_flops(self, forward: Mapping[str, float]) -> float:
        """Return the training FLOPs per sample that sparsity saves."""


class Component:
    """A component sees parameters, gradients and the optimizer's state, but no data.

    Everything has a default that does nothing, so write only what you use. From `on_start` to
    `on_end`, `module` is the objective that is trained, whose `network` is the network, and
    `optimizer` its optimizer.

    `constrain_gradients` and `constrain_weights` run in every step. A GPU may replay a step, so
    they change tensors in place, do not wait for the device and keep no Python state. `update`
    runs between two steps, after each step for which `due` returned True, and has no such limits.

    A component may also have an `identity`: a string that fully determines what the component
    does. Then other runs can reuse stages that were trained with it.
    """

    module: nn.Module
    optimizer: Optimizer

    @property
    def update_replaces_step(self) -> bool:
        """Whether the optimizer leaves weights unchanged in a step that `update` follows."""
        return False

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
        """Begin a stage of `steps` optimizer steps; all randomness comes from `seed`.

        `masks`: the masks that an earlier stage left on the same module, by parameter name. Empty
        for a stage that does not continue another one. Call `super().on_start` if you override it.
        """
        self.module, self.optimizer = module, optimizer

    def due(self, step: int) -> bool:
        """Return whether `update` must follow step `step` (from 0); called before each step."""
        return False

    def constrain_gradients(self, *, update_follows: bool) -> None:
        """Change gradients in place, before clipping and the optimizer.

        `update_follows`: whether `update` follows this step; then keep a copy of what it reads.
        """

    def constrain_weights(self) -> None:
        """Change weights in place, after the optimizer has updated them.

        It is not called in a step that `update` follows, which must leave weights constrained.
        """

    def update(self, step: int) -> None:
        """Change the constraint after a step for which `due` returned True; tensors in place."""

    def on_epoch_end(self, epoch: int) -> None:
        """Act after the last step of epoch `epoch` (from 0), before validation."""

    def on_end(self) -> None:
        """Release the module and the optimizer; called when the stage is over or has failed."""
        vars(self).pop("module", None)
        vars(self).pop("optimizer", None)

    def state_dict(self) -> dict[str, object]:
        """Return everything that resuming needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore a state, after `on_start`."""

    def settled(self) -> bool:
        """Return whether the network has reached the requested density.

        Selection rules ignore epochs that end earlier.
        """
        return True

    def masks(self) -> dict[str, Tensor]:
        """Return masks of active weights by parameter name of `module`, without dense weights."""
        return {}

    def densities(self) -> dict[str, float]:
        """Return the fraction of active weights by parameter name, where it is below 1."""
        return {}

    def saved_flops(self, forward: Mapping[str, float]) -> float:
        """Return the training FLOPs per sample that sparsity saves, averaged over the steps.

        `forward`: dense forward FLOPs per sample by parameter name of `module`.
        """
        return 0.0
