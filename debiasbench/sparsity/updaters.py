"""Published sparse training algorithms, each as its difference from `Updater`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from debiasbench.sparsity.algorithm import OptimizerState, Reads
from debiasbench.sparsity.distributions import global_budget, round_to
from debiasbench.sparsity.errors import SparsityError
from debiasbench.sparsity.layer import Layer
from debiasbench.sparsity.schedules import Anneal, cubic_density
from debiasbench.sparsity.settings import changed, setting
from debiasbench.sparsity.topology import drop_and_grow, top, top_in_rows
from debiasbench.sparsity.transfer import to_host
from debiasbench.sparsity.updater import Updater

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor

MOMENTA = ("momentum_buffer", "exp_avg")  # state of SGD; of Adam and its variants


@dataclass(frozen=True)
class Static(Updater):
    """Static sparsity: keep the first masks during the whole training."""


@dataclass(frozen=True)
class SET(Updater):
    """Sparse evolutionary training (SET): drop the smallest weights, grow random ones."""

    changes: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Mocanu et al. Scalable training of artificial neural networks with adaptive sparse "
        "connectivity inspired by network science. Nature Communications 2018."
    )

    anneal: Anneal = changed(Updater, "anneal", "constant")
    stop: float = changed(Updater, "stop", 1.0)


@dataclass(frozen=True)
class RigL(Updater):
    """RigL: drop the smallest weights, grow those with the largest gradients.

    As published, except for the times of updates: by default, the interval is a fraction of the
    training, so that it fits any length, the first update is after one interval, and the last one
    is before `stop`. The published interval is `every=100`. The released code also adds a little
    noise to the magnitudes by which weights are dropped. See also `presets.RigLReleased`.
    """

    changes: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Evci et al. Rigging the Lottery: Making All Tickets Winners. ICML 2020."
    )

    optimizer_state: OptimizerState = changed(Updater, "optimizer_state", "reset_new")
    update_replaces_step: bool = changed(Updater, "update_replaces_step", True)

    def reads(self) -> Reads:
        """Gradients of all weights, at updates."""
        return "gradients"

    def grow_scores(self, layer: Layer) -> Tensor:
        """Size of the gradient."""
        return _gradient(layer).abs()


@dataclass(frozen=True)
class ITOP(Updater):
    """In-time over-parameterisation (ITOP): explore many weights with rare, large updates.

    `grow`: random weights, random weights with those never active first, or weights with the
    largest gradients. The published interval is `every=1500` (batch 128, 250 epochs), or 4000 when
    growing by gradient. Unlike in the released code, no update follows the last step, and a layer
    keeps its last active weight.
    """

    changes: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Liu et al. Do We Actually Need Dense Over-Parameterization? ICML 2021."
    )

    grow: Literal["random", "unexplored", "gradient"] = setting(
        "random", "which weights to grow: random, never active before, or largest gradient"
    )
    drop_fraction: float = changed(Updater, "drop_fraction", 0.5)
    final_drop_fraction: float = changed(Updater, "final_drop_fraction", 0.005)
    rounding: Literal["down", "up"] = changed(Updater, "rounding", "up")
    stop: float = changed(Updater, "stop", 1.0)

    def reads(self) -> Reads:
        """Gradients if weights are grown by gradient."""
        return "gradients" if self.grow == "gradient" else "weights"

    def grow_scores(self, layer: Layer) -> Tensor:
        """Random, random with unexplored weights first, or the size of the gradient."""
        if self.grow == "gradient":
            return _gradient(layer).abs()
        return layer.random() + (~layer.explored if self.grow == "unexplored" else 0)


@dataclass(frozen=True)
class SNFS(Updater):
    """Sparse momentum (SNFS): grow by momentum, and more in layers with a larger momentum."""

    changes: ClassVar[bool] = True
    keeps_patterns: ClassVar[bool] = False
    citation: ClassVar[str] = (
        "Dettmers, Zettlemoyer. Sparse Networks from Scratch: Faster Training without Losing "
        "Performance. 2019."
    )

    drop_fraction: float = changed(Updater, "drop_fraction", 0.5)
    anneal: Anneal = changed(Updater, "anneal", "linear")
    every: str = changed(Updater, "every", "1 epoch")
    stop: float = changed(Updater, "stop", 1.0)
    optimizer_state: OptimizerState = changed(Updater, "optimizer_state", "dense")

    def reads(self) -> Reads:
        """All gradients at every step, because inactive weights need a momentum."""
        return "all gradients"

    def grow_scores(self, layer: Layer) -> Tensor:
        """Size of the momentum, which inactive weights also have."""
        for name in MOMENTA:
            if name in layer.state:
                momentum: Tensor = layer.state[name]
                return momentum.abs()
        raise SparsityError(
            "snfs grows weights by momentum, but the optimizer has none: give SGD a momentum, or "
            "use Adam"
        )

    def update(self, layers: Sequence[Layer], progress: float) -> dict[str, Tensor]:
        """Drop a fraction of each layer, and grow in proportion to the mean momentum of layers."""
        drops = {x.name: 0 if x.dense else self.exchanged(x.active, progress) for x in layers}
        room = {x.name: x.mask.numel() - x.active + drops[x.name] for x in layers}
        means = to_host([_mean(self.grow_scores(x), x) for x in layers])
        wish = {x.name: mean + 1e-30 for x, mean in zip(layers, means, strict=True)}
        grows = _in_proportion(sum(drops.values()), wish, room)
        return {
            x.name: drop_and_grow(
                x.mask,
                self.drop_scores(x),
                self.grow_scores(x),
                drops[x.name],
                grows[x.name],
                active=x.active,
            )
            for x in layers
        }


@dataclass(frozen=True)
class GMP(Updater):
    """Gradual magnitude pruning (GMP): start dense, prune the smallest weights of each layer."""

    changes: ClassVar[bool] = True
    keeps_patterns: ClassVar[bool] = False
    citation: ClassVar[str] = "Zhu, Gupta. To prune, or not to prune. 2017. Equation 1."

    initial_density: float = setting(1.0, "density before the first update", gt=0, le=1)

    prunes: ClassVar[bool] = True

    def first_density(self) -> float:
        """Return the density at the start of the cubic schedule."""
        return max(self.initial_density, self.density)

    def update(self, layers: Sequence[Layer], progress: float) -> dict[str, Tensor]:
        """Prune every layer to its budget at the current density."""
        density = cubic_density(self.first_density(), self.density, progress)
        dense = [x.name for x in layers if x.dense]
        targets = self.budgets({x.name: x.mask.shape for x in layers}, density, dense)
        if sum(targets.values()) > sum(x.active for x in layers):  # an earlier stage pruned more
            return {x.name: x.mask for x in layers}
        return {x.name: self._to(x, targets[x.name]) for x in layers}

    def _to(self, layer: Layer, target: int) -> Tensor:
        # rounding may give a layer one weight more than before: it grows one again
        drop, grow = max(0, layer.active - target), max(0, target - layer.active)
        return drop_and_grow(
            layer.mask, self.drop_scores(layer), layer.random(), drop, grow, active=layer.active
        )


@dataclass(frozen=True)
class GraNet(GMP):
    """GraNet: prune by magnitude over all layers, then exchange by gradient within each layer."""

    citation: ClassVar[str] = (
        "Liu et al. Sparse Training via Boosting Pruning Plasticity with Neuroregeneration. "
        "NeurIPS 2021."
    )

    initial_density: float = changed(GMP, "initial_density", 0.5)
    drop_fraction: float = changed(Updater, "drop_fraction", 0.5)
    final_drop_fraction: float = changed(Updater, "final_drop_fraction", 0.005)

    def reads(self) -> Reads:
        """Gradients of all weights, at updates."""
        return "gradients"

    def grow_scores(self, layer: Layer) -> Tensor:
        """Size of the gradient."""
        return _gradient(layer).abs()

    def check_end(self, shapes: Mapping[str, Sequence[int]], dense: Collection[str] = ()) -> None:
        """Raise `SparsityTooHigh` unless every layer can keep a weight, and dense layers all."""
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        needed = sum(size if name in dense else 1 for name, size in sizes.items())
        global_budget(self.density, sum(sizes.values()), needed)

    def update(self, layers: Sequence[Layer], progress: float) -> dict[str, Tensor]:
        """Keep the largest weights of the whole network, then exchange weights within layers."""
        density = cubic_density(self.first_density(), self.density, progress)
        # an earlier stage may have pruned more
        active = sum(x.active for x in layers)
        total = min(round(density * sum(x.mask.numel() for x in layers)), active)
        pruned = []
        for layer, left in zip(layers, _largest_of_all(layers, total), strict=True):
            mask = drop_and_grow(
                layer.mask,
                layer.weight.abs(),
                layer.weight,
                layer.active - left,
                0,
                active=layer.active,
            )
            pruned.append(Layer(**{**vars(layer), "mask": mask, "active": left}))
        return super(GMP, self).update(pruned, progress)


@dataclass(frozen=True)
class MEST(Updater):
    """MEST (elastic mutation): drop weights with small value and gradient, grow random ones."""

    changes: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Yuan et al. MEST: Accurate and Fast Memory-Economic Sparse Training Framework on the "
        "Edge. NeurIPS 2021."
    )

    gradient_weight: float = setting(
        1.0, "lambda of |w| + lambda |g|; the paper does not give a value", ge=0
    )
    drop_fraction: float = changed(Updater, "drop_fraction", 0.5)
    anneal: Anneal = changed(Updater, "anneal", "linear")

    def reads(self) -> Reads:
        """Gradients of active weights."""
        return "active gradients"

    def drop_scores(self, layer: Layer) -> Tensor:
        """|w| + lambda |g| of active weights, for which sparse gradients are enough."""
        return layer.weight.abs() + self.gradient_weight * _gradient(layer).abs()


@dataclass(frozen=True)
class SRigL(RigL):
    """SRigL: RigL with the same fan-in for every neuron, which removes neurons of little use.

    A neuron is kept if at least a fraction `ablation` of its fan-in is salient: weights that the
    update keeps, or gradients that it would grow. The kept neurons share the budget of the layer.
    The last layer keeps all neurons.
    """

    citation: ClassVar[str] = (
        "Lasby et al. Dynamic Sparse Training with Structured Sparsity. ICLR 2024."
    )

    pattern: str = changed(Updater, "pattern", "constant_fan_in")
    ablation: float = setting(
        0.3, "minimum salient fraction of the fan-in with which a neuron is kept", ge=0, le=1
    )

    def __post_init__(self) -> None:
        """Check every setting."""
        super().__post_init__()
        if self.pattern != "constant_fan_in":
            raise SparsityError(
                f"SRigL gives every neuron the same fan-in, and does not keep to "
                f"pattern={self.pattern}: leave it constant_fan_in, or use rigl"
            )

    def update(self, layers: Sequence[Layer], progress: float) -> dict[str, Tensor]:
        """Remove neurons, then give every kept neuron its largest weights and gradients."""
        sparse = [x for x in layers if x.active < x.mask.numel()]
        fan_ins = to_host([x.mask.flatten(1).sum(1).max() for x in sparse])
        exchanged = {
            x.name: self._exchange(x, self.exchanged(x.active, progress), fan_in)
            for x, fan_in in zip(sparse, fan_ins, strict=True)
        }
        return {x.name: exchanged.get(x.name, x.mask) for x in layers}

    def _exchange(self, layer: Layer, k: int, fan_in: int) -> Tensor:
        """Return the new mask. `fan_in`: of the kept neurons, so far."""
        size, gradient = layer.weight.abs().flatten(1), _gradient(layer).abs().flatten(1)
        mask, active = layer.mask.flatten(1), layer.active  # (neurons, inputs)
        kept = drop_and_grow(mask, size, gradient, k, grow=0, active=active)
        salient = drop_and_grow(kept, size, gradient, 0, grow=k, active=active - k)
        alive = salient.sum(1) >= max(1.0, self.ablation * fan_in)  # (neurons,)
        alive = torch.ones_like(alive) if layer.last else alive | ~alive.any()
        share = layer.budget // alive.sum()
        new_fan_in = share.clamp(min=1, max=mask.shape[1]) * alive  # (neurons,)
        stay = top_in_rows(size, kept, new_fan_in)
        new = stay | top_in_rows(gradient, ~stay, new_fan_in - stay.sum(1))
        return new.view_as(layer.mask)


def _gradient(layer: Layer) -> Tensor:
    """Return the gradient, which is 0 if the loss does not depend on the weight."""
    return torch.zeros_like(layer.weight) if layer.gradient is None else layer.gradient


def _mean(scores: Tensor, layer: Layer) -> Tensor:
    """Return the mean score of the active weights of a layer."""
    if scores.is_cpu:
        return scores[layer.mask].mean()
    # picking places would wait for the device; the sum may round differently
    return scores.masked_fill(~layer.mask, 0).sum() / layer.active


def _in_proportion(total: int, wish: dict[str, float], room: dict[str, int]) -> dict[str, int]:
    """Split `total` in proportion to `wish`, at most `room` for each layer."""
    full: set[str] = set()
    while True:
        left = total - sum(room[n] for n in full)
        weight = sum(w for n, w in wish.items() if n not in full)
        shares = {n: room[n] if n in full else left * w / weight for n, w in wish.items()}
        over = {n for n in wish if n not in full and shares[n] > room[n]}
        if not over:
            return round_to(total, shares, room)
        full |= over


def _largest_of_all(layers: Sequence[Layer], total: int) -> list[int]:
    """Return how many active weights of each layer are among the `total` largest of all.

    Every layer keeps at least one weight, and a dense layer keeps all. Ties go to earlier layers.
    """
    sizes = []
    for layer in layers:
        size = layer.weight.abs().masked_fill(~layer.mask, -1.0).flatten()
        if layer.dense:
            size.fill_(torch.inf)
        else:
            size.scatter_(0, size.argmax(0, keepdim=True), torch.inf)
        sizes.append(size)
    chosen = torch.split(top(torch.cat(sizes), total), [len(size) for size in sizes])
    return to_host([part.sum() for part in chosen])
