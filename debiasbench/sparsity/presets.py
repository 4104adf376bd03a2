"""REST's sparse training, and the settings of algorithms as published or released."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.sparsity.algorithm import OptimizerState, Reads
from debiasbench.sparsity.layer import Layer
from debiasbench.sparsity.settings import changed, setting
from debiasbench.sparsity.updater import Updater
from debiasbench.sparsity.updaters import ITOP, SET, RigL

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

REST_PAPER = (
    "Zhao, Yin, Liu, Fang, Pechenizkiy. REST: Enhancing Group Robustness in DNNs through "
    "Reweighted Sparse Training. ECML PKDD 2023."
)


@dataclass(frozen=True)
class REST(RigL):
    """Sparse training of REST: like RigL, with larger updates that do not replace a step."""

    citation: ClassVar[str] = REST_PAPER

    grow: Literal["gradient", "random"] = setting(
        "gradient", "which weights to grow: largest gradient or random"
    )
    drop_fraction: float = changed(RigL, "drop_fraction", 0.5)
    final_drop_fraction: float = changed(RigL, "final_drop_fraction", 0.005)
    rounding: Literal["down", "up"] = changed(RigL, "rounding", "up")
    optimizer_state: OptimizerState = changed(RigL, "optimizer_state", "mask")
    update_replaces_step: bool = changed(RigL, "update_replaces_step", False)

    def reads(self) -> Reads:
        """Gradients if weights are grown by gradient."""
        return "gradients" if self.grow == "gradient" else "weights"

    def grow_scores(self, layer: Layer) -> Tensor:
        """Size of the gradient, or random."""
        return super().grow_scores(layer) if self.grow == "gradient" else layer.random()


@dataclass(frozen=True)
class RESTReleased(REST):
    """REST as released: updates every 1000 steps until the end; momentum is never reset.

    The last step can have an update, and a layer with a single active weight exchanges it. Masks
    have exact numbers of weights; the released code draws every weight independently.
    """

    every: str = changed(RigL, "every", "1000")
    stop: float = changed(RigL, "stop", 1.0)
    optimizer_state: OptimizerState = changed(RigL, "optimizer_state", "dense")

    def updates_after(self, done: int, every: int, begin: float, stop: float) -> bool:
        """Return whether the topology changes after `done` steps; also after the last one."""
        return done % every == 0 and begin < done <= stop

    def exchanged(self, active: int, progress: float) -> int:
        """Return how many of a layer's `active` weights an update exchanges."""
        return min(math.ceil(self.fraction_at(progress) * active), active)


@dataclass(frozen=True)
class RigLReleased(RigL):
    """RigL with updates in the steps of the released code: first in step 0, last in step `stop`.

    In the released code an update is not counted as a step of the training, although it takes the
    place of an optimizer step and consumes a batch. Here it is counted: for as many optimizer steps
    as there, add the number of updates to the steps of the training. Other differences: `every`
    counts updates, so one optimizer step less lies between them; the fraction is one step further
    on its way to 0; updates are at multiples of `every`, also if `start` is not one; and no noise
    is added to the sizes of the weights.
    """

    every: str = changed(RigL, "every", "100")

    def updates_after(self, done: int, every: int, begin: float, stop: float) -> bool:
        """Return whether the topology changes in the step after which `done` steps were taken."""
        return (done - 1) % every == 0 and begin <= done - 1 <= stop


PRESETS: dict[str, Callable[..., Updater]] = {
    # ResNet-50 on ImageNet, batch 4096 of 32,000 steps (Evci et al., 2020, section 4)
    "rigl": lambda density: RigL(density=density, every="100"),
    # once an epoch, a fraction of 0.3, until the end (Mocanu et al., 2018)
    "set": lambda density: SET(density=density, every="1 epoch"),
    # batch 128, 250 epochs of CIFAR (the released code's README)
    "itop": lambda density: ITOP(density=density, every="1500"),
    "rest": lambda density: REST(density=density, every="1000", stop=1.0),
    "rest_released": lambda density: RESTReleased(density=density),
}
"""Functions of the density: settings as published, and for `rest_released` as released."""
