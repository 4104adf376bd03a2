"""What a sparse training needs to know of an updater."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from debiasbench.sparsity.criteria import MaskSettings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor

    from debiasbench.sparsity.layer import Layer
    from debiasbench.sparsity.schedules import Interval

OptimizerState = Literal["mask", "reset_new", "dense"]
Reads = Literal["weights", "active gradients", "gradients", "all gradients"]
Init = Literal["random", "magnitude", "global_magnitude", "snip", "snip_per_layer"]


class Algorithm(MaskSettings, Protocol):
    """The part of `debiasbench.sparsity.Updater` that masks are made and changed by."""

    @property
    def start(self) -> float:
        """Fraction of training before the first update."""

    @property
    def stop(self) -> float:
        """Fraction of training after which the topology stays."""

    @property
    def optimizer_state(self) -> OptimizerState:
        """What happens to the optimizer state of inactive weights."""

    @property
    def update_replaces_step(self) -> bool:
        """Whether an update replaces an optimizer step."""

    @property
    def include(self) -> tuple[str, ...]:
        """Patterns of the layers made sparse."""

    @property
    def exclude(self) -> tuple[str, ...]:
        """Patterns of layers that stay dense and are not counted."""

    @property
    def keep_dense(self) -> tuple[str, ...]:
        """Patterns of layers that stay dense and are counted."""

    @property
    def changes(self) -> bool:
        """Whether there are updates at all."""

    @property
    def prunes(self) -> bool:
        """Whether density falls."""

    def check_end(self, shapes: Mapping[str, Sequence[int]], dense: Collection[str] = ()) -> None:
        """Raise `SparsityTooHigh` if pruning cannot reach the density."""

    def reads(self) -> Reads:
        """Return what updates look at."""

    def update(self, layers: Sequence[Layer], progress: float) -> dict[str, Tensor]:
        """Return the new masks."""

    def updates_after(self, done: int, every: int, begin: float, stop: float) -> bool:
        """Return whether the topology changes after `done` steps."""

    def interval(self) -> Interval:
        """Return the time between updates."""
