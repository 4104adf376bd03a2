"""What an updater is: settings, scores, and how new masks follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.sparsity.algorithm import Init, OptimizerState, Reads
from debiasbench.sparsity.attach import SparseTraining
from debiasbench.sparsity.distributions import allocate
from debiasbench.sparsity.errors import SparsityError
from debiasbench.sparsity.layer import Layer
from debiasbench.sparsity.patterns import Pattern, read_pattern
from debiasbench.sparsity.schedules import Anneal, Interval, annealed
from debiasbench.sparsity.settings import check, setting
from debiasbench.sparsity.topology import drop_and_grow, drop_and_grow_in_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer


@dataclass(frozen=True)
class Updater:
    """Keep the topology as it was drawn; algorithms that change it derive from this class.

    An algorithm is a frozen dataclass that overrides `drop_scores`, `grow_scores`, or `update`.
    Fields are settings. Raises `SparsityError` for a setting out of range.
    """

    density: float = setting(0.05, "fraction of the weights kept", gt=0, le=1)
    distribution: str = setting("erk", "how layers share them: erk, er, uniform, uniform_plus")
    pattern: str = setting("unstructured", "unstructured, constant_fan_in, or N:M such as 2:4")
    init: Init = setting(
        "random", "first masks: random, largest weights (by layer or global), or SNIP at step 0"
    )
    every: str = setting("5%", "between updates: steps (100), '2 epochs' or '5%' of training")
    start: float = setting(0.0, "fraction of training before the first update", ge=0, lt=1)
    stop: float = setting(0.75, "fraction of training after which the topology stays", gt=0, le=1)
    drop_fraction: float = setting(
        0.3,
        "fraction of a layer's active weights that an update at the start would exchange",
        ge=0,
        le=1,
    )
    final_drop_fraction: float = setting(0.0, "the same fraction at `stop`", ge=0, le=1)
    anneal: Anneal = setting("cosine", "how the fraction changes between the two")
    rounding: Literal["down", "up"] = setting("down", "rounding of the number of weights exchanged")
    optimizer_state: OptimizerState = setting(
        "mask",
        "optimizer state of inactive weights: mask sets it to 0; reset_new when they grow; dense "
        "leaves it",
    )
    update_replaces_step: bool = setting(False, "whether an update replaces an optimizer step")
    include: tuple[str, ...] = setting((), "patterns of the layers made sparse; empty: all")
    exclude: tuple[str, ...] = setting((), "patterns of layers that stay dense and are not counted")
    keep_dense: tuple[str, ...] = setting((), "patterns of layers that stay dense and are counted")

    changes: ClassVar[bool] = False
    """Whether there are updates at all."""

    prunes: ClassVar[bool] = False
    """Whether density falls, so that the last update must come exactly at `stop`."""

    keeps_patterns: ClassVar[bool] = True
    """Whether updates keep to `pattern`; if not, it must be "unstructured"."""

    citation: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check every setting."""
        object.__setattr__(self, "every", str(self.every))
        check(self)
        self.interval()
        if read_pattern(self.pattern) is not None and not self.keeps_patterns:
            raise SparsityError(
                f"Updates of {type(self).__name__} do not keep to pattern={self.pattern}: leave it "
                "unstructured, or use an algorithm such as rigl or set"
            )

    def attach(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        steps_per_epoch: int | None = None,
        seed: int = 0,
        densities: Mapping[str, float] | None = None,
        masks: Mapping[str, Tensor] | None = None,
    ) -> SparseTraining:
        """Make `model` sparse, and keep it sparse at every step of `optimizer`.

        `densities`: by weight, instead of density and distribution. `masks`: first masks, for
        example from `criteria.global_masks`. Raises `SparsityError`, and the model is unchanged.
        """
        return SparseTraining(
            self,
            model,
            optimizer,
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            seed=seed,
            densities=densities,
            masks=masks,
        )

    # --- what an algorithm defines ------------------------------------------------------------

    def reads(self) -> Reads:
        """Return what updates look at; the ledger counts the cost of dense gradients.

        "gradients": of inactive weights too, at updates; "all gradients": at every step.
        """
        return "weights"

    def drop_scores(self, layer: Layer) -> Tensor:
        """Score active weights; those with the lowest scores are dropped."""
        return layer.weight.abs()

    def grow_scores(self, layer: Layer) -> Tensor:
        """Score inactive weights; those with the highest scores grow. Random by default."""
        return layer.random()

    def update(self, layers: Sequence[Layer], progress: float) -> dict[str, Tensor]:
        """Return the new masks. `progress`: how far training is on the way to `stop`, in [0, 1]."""
        return {
            layer.name: self.exchange(layer, self.exchanged(layer.active, progress))
            for layer in layers
        }

    def updates_after(self, done: int, every: int, begin: float, stop: float) -> bool:
        """Return whether the topology changes after `done` steps, between steps `begin` and `stop`.

        `every`: steps between two updates.
        """
        return done % every == 0 and begin < done < stop

    def first_density(self) -> float:
        """Return the density before the first update, for `budgets`."""
        return self.density

    # --- what it builds on --------------------------------------------------------------------

    def exchange(self, layer: Layer, k: int) -> Tensor:
        """Return the layer's mask with `k` weights dropped and as many grown."""
        if layer.active == layer.mask.numel() or k == 0:
            return layer.mask  # a dense layer has nothing to grow
        drop, grow = self.drop_scores(layer), self.grow_scores(layer)
        pattern = self.rows()
        if pattern is None:
            return drop_and_grow(layer.mask, drop, grow, k, active=layer.active)
        rows = drop_and_grow_in_rows(
            pattern.rows(layer.mask),
            pattern.rows(drop),
            pattern.rows(grow),
            k,
            active=layer.active,
        )
        return pattern.back(rows, layer.mask.shape)

    def exchanged(self, active: int, progress: float) -> int:
        """Return how many of a layer's `active` weights an update exchanges; one stays."""
        count = self.fraction_at(progress) * active
        return min(math.ceil(count) if self.rounding == "up" else math.floor(count), active - 1)

    def fraction_at(self, progress: float) -> float:
        """Return the fraction exchanged at `progress`, in [0, 1], on the way to `stop`."""
        return annealed(self.anneal, self.drop_fraction, self.final_drop_fraction, progress)

    def interval(self) -> Interval:
        """Return `every`, read."""
        return Interval.read(self.every)

    def rows(self) -> Pattern | None:
        """Return `pattern`, read."""
        return read_pattern(self.pattern)

    def check_end(self, shapes: Mapping[str, Sequence[int]], dense: Collection[str] = ()) -> None:
        """Raise `SparsityTooHigh` if pruning cannot reach `density`; `dense`: layers left dense."""
        self.budgets(shapes, self.density, list(dense))

    def budgets(
        self, shapes: Mapping[str, Sequence[int]], density: float, dense: Sequence[str] = ()
    ) -> dict[str, int]:
        """Return how many weights each layer keeps at a density."""
        return allocate(shapes, density, self.distribution, dense=dense)
