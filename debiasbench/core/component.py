"""What a component is: something beside the loss that acts around the optimizer step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn
    from torch.optim import Optimizer


class Component(Protocol):
    """The engine calls these; a component sees parameters, gradients, optimizer state, no data.

    One that also has an `identity`, a text that says all that decides what it does, lets a stage be
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

    def before_step(self, step: int) -> None:
        """Act on fresh gradients, before clipping and the optimizer step (from 0)."""

    def after_step(self, step: int) -> None:
        """Act on the parameters that the optimizer has just moved."""

    def on_epoch_end(self, epoch: int) -> None:
        """Act after the last step of an epoch, before validation (from 0)."""

    def on_end(self) -> None:
        """Let go of module and optimizer: the stage is over, or has failed."""

    def state_dict(self) -> dict[str, object]:
        """Return all that is needed to go on after a restart."""

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Take up a state again, after `on_start`."""

    def settled(self) -> bool:
        """Say whether the network may be a result as it is, its density the one asked for.

        Selection rules pass over epochs that end before.
        """

    def masks(self) -> dict[str, Tensor]:
        """Which weights are active, by parameter name of `module`, where not all are."""

    def densities(self) -> dict[str, float]:
        """Fraction of non-zero weights by parameter name of `module`, where it is below 1."""

    def saved_flops(self, forward: Mapping[str, float]) -> float:
        """Training FLOPs a sample that the stage saved against dense, averaged over its steps.

        `forward`: dense forward FLOPs a sample by parameter name of `module`.
        """
