"""What a component is: something beside the loss that acts around the optimizer step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn
    from torch.optim import Optimizer


class Component(Protocol):
    """A component sees parameters, gradients and the optimizer's state, but no data.

    `constrain_gradients` and `constrain_weights` run within every step, which a GPU may replay:
    they change tensors in place, and neither wait for the device nor keep Python state. `update`
    runs between steps, after those that `due` names, and is free to do both.

    A component that also has an `identity`, a text that determines what it does, lets a stage be
    shared with other runs that train the same.
    """

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

        `masks`: what an earlier stage left on the same module, by parameter name; empty at first.
        """

    def due(self, step: int) -> bool:
        """Return whether `update` must follow this step; called before each step (from 0)."""

    @property
    def update_replaces_step(self) -> bool:
        """Whether the optimizer does not move weights in a step that `update` follows."""

    def constrain_gradients(self, *, update_follows: bool) -> None:
        """Change gradients in place, before clipping and the optimizer.

        `update_follows`: keep a copy of what `update` will read.
        """

    def constrain_weights(self) -> None:
        """Change weights in place, after the optimizer has moved them."""

    def update(self, step: int) -> None:
        """Change what is constrained, after the step that was due; tensors in place."""

    def on_epoch_end(self, epoch: int) -> None:
        """Act after the last step of an epoch, before validation (from 0)."""

    def on_end(self) -> None:
        """Release module and optimizer: the stage is over, or has failed."""

    def state_dict(self) -> dict[str, object]:
        """Return everything that resuming needs."""

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore a state, after `on_start`."""

    def settled(self) -> bool:
        """Return whether the network may be a result as it is, at the density asked for.

        Selection rules ignore epochs that end before.
        """

    def masks(self) -> dict[str, Tensor]:
        """Return which weights are active, by parameter name of `module`, where not all are."""

    def densities(self) -> dict[str, float]:
        """Return the fraction of active weights by parameter name, where it is below 1."""

    def saved_flops(self, forward: Mapping[str, float]) -> float:
        """Return the training FLOPs per sample saved against dense, averaged over the steps.

        `forward`: dense forward FLOPs per sample by parameter name of `module`.
        """
