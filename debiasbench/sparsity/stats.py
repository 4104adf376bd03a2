"""Statistics of a sparse training: weights kept, exploration, churn and dead units by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from debiasbench.sparsity.layout import Layout


@dataclass(frozen=True)
class LayerStats:
    """Statistics of the weight of one layer.

    `kept`: number of active weights. `explored`: fraction of weights that were active at any time.
    `grown`: number of weights grown, over all updates. Units and inputs are features of a linear
    layer and channels of a convolution; with groups, a unit reads the inputs of its group only.
    """

    name: str
    weights: int
    kept: int
    explored: float
    grown: int
    dead_outputs: int  # units without an active input weight
    dead_inputs: int  # inputs without an active weight to any unit
    tied: tuple[str, ...]  # other names of this weight, such as that of an embedding

    @property
    def density(self) -> float:
        """Fraction of weights kept, in [0, 1]."""
        return self.kept / self.weights


@dataclass(frozen=True)
class Stats:
    """Statistics of a sparse training up to the current step.

    `explored`: R_s, the in-time over-parameterisation (Liu et al., ICML 2021), which is the
    fraction of weights that were active at any time. `churn`: fraction of the active weights that
    the last update has grown. `dense`: the weights of the network that stay dense and that
    `weights` and `density` do not count: those of embeddings and recurrent layers, frozen ones, and
    those that the settings leave out.
    """

    step: int
    updates: int
    weights: int
    kept: int
    explored: float
    churn: float
    layers: tuple[LayerStats, ...]
    dense: tuple[str, ...]

    @property
    def density(self) -> float:
        """Fraction of weights kept, in [0, 1]."""
        return self.kept / self.weights

    def __str__(self) -> str:
        """Return a report: the density of each layer, and the weights that stay dense."""
        layers = [
            (f"{x.density:.4f}  {x.name}" + "".join(f", shared as {other}" for other in x.tied))
            for x in self.layers
        ]
        total = f"{self.density:.4f}  of all: {self.kept} of {self.weights} weights"
        dense = [f"dense, not counted: {', '.join(self.dense)}"] if self.dense else []
        return "\n".join([*layers, total, *dense])


class Counted(Protocol):
    """What `statistics` reads of a sparse training."""

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """Active weights, bool, by parameter name."""

    @property
    def layouts(self) -> Mapping[str, Layout]:
        """How weights are stored, by parameter name."""

    @property
    def dense(self) -> Sequence[str]:
        """Names of the weights that have no mask."""

    @property
    def tied(self) -> Mapping[str, Sequence[str]]:
        """Other names of a weight, by parameter name."""

    @property
    def explored(self) -> Mapping[str, Tensor]:
        """Weights that were active at any time, bool, by parameter name."""

    @property
    def grown(self) -> Mapping[str, int]:
        """Number of weights grown, over all updates, by parameter name."""

    @property
    def exchanged_last(self) -> int:
        """Number of weights grown by the last update."""

    @property
    def step(self) -> int:
        """Number of optimizer steps taken."""

    @property
    def updates(self) -> int:
        """Number of topology updates made."""


def statistics(training: Counted) -> Stats:
    """Return the statistics of a sparse training at its current step."""
    layers = tuple(
        LayerStats(
            name=name,
            weights=mask.numel(),
            kept=int(mask.sum()),
            explored=int(training.explored[name].sum()) / mask.numel(),
            grown=training.grown[name],
            dead_outputs=_empty_rows(training.layouts[name].by_output(mask)),
            dead_inputs=_empty_rows(training.layouts[name].by_input(mask)),
            tied=tuple(training.tied.get(name, ())),
        )
        for name, mask in training.masks.items()
    )
    weights, kept = sum(x.weights for x in layers), sum(x.kept for x in layers)
    return Stats(
        step=training.step,
        updates=training.updates,
        weights=weights,
        kept=kept,
        explored=sum(x.explored * x.weights for x in layers) / weights,
        churn=training.exchanged_last / kept,
        layers=layers,
        dense=tuple(training.dense),
    )


def _empty_rows(mask: Tensor) -> int:
    return int((~mask.flatten(1).any(1)).sum())
