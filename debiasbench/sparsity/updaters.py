"""The field's algorithms, each in a few lines over one exact exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from debiasbench.sparsity.algorithm import OptimizerState, Reads
from debiasbench.sparsity.distributions import round_to
from debiasbench.sparsity.errors import SparsityError
from debiasbench.sparsity.layer import Layer
from debiasbench.sparsity.schedules import Anneal, cubic_density
from debiasbench.sparsity.settings import changed, setting
from debiasbench.sparsity.topology import drop_and_grow, top, top_in_rows
from debiasbench.sparsity.updater import Updater

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MOMENTA = ("momentum_buffer", "exp_avg")  # of SGD; of Adam and its kin


@dataclass(frozen=True)
class Static(Updater):
    """Static sparsity: the first masks stay."""


@dataclass(frozen=True)
class SET(Updater):
    """Sparse evolutionary training: drop the smallest weights, grow at random."""

    changes: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Mocanu et al. Scalable training of artificial neural networks with adaptive sparse "
        "connectivity inspired by network science. Nature Communications 2018."
    )

    anneal: Anneal = changed(Updater, "anneal", "constant")
    stop: float = changed(Updater, "stop", 1.0)


@dataclass(frozen=True)
class RigL(Updater):
    """RigL: drop the smallest weights, grow where the dense gradient is largest.

    As published but for the interval, which is a part of the training and so fits any length;
    `every=100` is the published one.
    """

    changes: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Evci et al. Rigging the Lottery: Making All Tickets Winners. ICML 2020."
    )

    optimizer_state: OptimizerState = changed(Updater, "optimizer_state", "reset_new")
    update_replaces_step: bool = changed(Updater, "update_replaces_step", True)

    def reads(self) -> Reads:
        """Gradients of inactive weights too, at updates."""
        return "gradients"

    def grow_scores(self, layer: Layer) -> Tensor:
        """Size of the gradient."""
        return _gradient(layer).abs()


@dataclass(frozen=True)
class ITOP(Updater):
    """In-time over-parameterisation: explore many weights by long intervals and large exchanges.

    `grow`: at random, at random among those never active before, or by gradient. The published
    interval is `every=1500` (batch 128, 250 epochs), 4000 with gradients.
    """

    changes: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Liu et al. Do We Actually Need Dense Over-Parameterization? ICML 2021."
    )

    grow: Literal["random", "unexplored", "gradient"] = setting("random", "what to grow")
    drop_fraction: float = changed(Updater, "drop_fraction", 0.5)
    final_drop_fraction: float = changed(Updater, "final_drop_fraction", 0.005)
    rounding: Literal["down", "up"] = changed(Updater, "rounding", "up")
    stop: float = changed(Updater, "stop", 1.0)

    def reads(self) -> Reads:
        """Gradients, where it grows by them."""
        return "gradients" if self.grow == "gradient" else "weights"

    def grow_scores(self, layer: Layer) -> Tensor:
        """Random, random with the unexplored first, or the size of the gradient."""
        if self.grow == "gradient":
            return _gradient(layer).abs()
        return layer.random() + (~layer.explored if self.grow == "unexplored" else 0)


@dataclass(frozen=True)
class SNFS(Updater):
    """Sparse momentum: grow where momentum is largest, and more in layers that have more of it."""

    changes: ClassVar[bool] = True
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
        """Momentum of inactive weights, so their gradients at every step."""
        return "all gradients"

    def grow_scores(self, layer: Layer) -> Tensor:
        """Size of the momentum, which runs on for inactive weights."""
        for name in MOMENTA:
            if name in layer.state:
                momentum: Tensor = layer.state[name]
                return momentum.abs()
        raise SparsityError("snfs grows by momentum: give SGD a momentum, or use Adam")

    def update(self, layers: Sequence[Layer], progress: float) -> dict[str, Tensor]:
        """Take from each layer its part, give it back in proportion to mean momentum."""
        drops = {x.name: 0 if x.dense else self.exchanged(x.active, progress) for x in layers}
        room = {x.name: x.mask.numel() - x.active + drops[x.name] for x in layers}
        wish = {x.name: float(self.grow_scores(x)[x.mask].mean()) + 1e-30 for x in layers}
        grows = _in_proportion(sum(drops.values()), wish, room)
        return {
            x.name: drop_and_grow(
                x.mask, self.drop_scores(x), self.grow_scores(x), drops[x.name], grows[x.name]
            )
            for x in layers
        }


@dataclass(frozen=True)
class GMP(Updater):
    """Gradual magnitude pruning: from dense, the smallest weights of each layer go for good."""

    changes: ClassVar[bool] = True
    citation: ClassVar[str] = "Zhu, Gupta. To prune, or not to prune. 2017. Equation 1."

    initial_density: float = setting(1.0, "density before the first update", gt=0, le=1)

    prunes: ClassVar[bool] = True

    def first_density(self) -> float:
        """Where the cubic starts."""
        return max(self.initial_density, self.density)

    def update(self, layers: Sequence[Layer], progress: float) -> dict[str, Tensor]:
        """Prune every layer to the budget of the density that is due."""
        density = cubic_density(self.first_density(), self.density, progress)
        dense = [x.name for x in layers if x.dense]
        targets = self.budgets({x.name: x.mask.shape for x in layers}, density, dense)
        return {x.name: self._to(x, targets[x.name]) for x in layers}

    def _to(self, layer: Layer, target: int) -> Tensor:
        # rounding may give a layer one weight more than before: it takes one back
        drop, grow = max(0, layer.active - target), max(0, target - layer.active)
        return drop_and_grow(layer.mask, self.drop_scores(layer), layer.random(), drop, grow)


@dataclass(frozen=True)
class GraNet(GMP):
    """GraNet: prune by magnitude over all layers, then regenerate by gradient in each."""

    citation: ClassVar[str] = (
        "Liu et al. Sparse Training via Boosting Pruning Plasticity with Neuroregeneration. "
        "NeurIPS 2021."
    )

    initial_density: float = changed(GMP, "initial_density", 0.5)
    drop_fraction: float = changed(Updater, "drop_fraction", 0.5)
    final_drop_fraction: float = changed(Updater, "final_drop_fraction", 0.005)

    def reads(self) -> Reads:
        """Gradients of inactive weights too, at updates."""
        return "gradients"

    def grow_scores(self, layer: Layer) -> Tensor:
        """Size of the gradient."""
        return _gradient(layer).abs()

    def update(self, layers: Sequence[Layer], progress: float) -> dict[str, Tensor]:
        """Keep the largest weights of the whole network, then exchange within layers."""
        density = cubic_density(self.first_density(), self.density, progress)
        total = round(density * sum(x.mask.numel() for x in layers))
        pruned = []
        for layer, left in zip(layers, _largest_of_all(layers, total), strict=True):
            mask = drop_and_grow(
                layer.mask, layer.weight.abs(), layer.weight, layer.active - left, 0
            )
            pruned.append(Layer(**{**vars(layer), "mask": mask, "active": left}))
        return super(GMP, self).update(pruned, progress)


@dataclass(frozen=True)
class MEST(Updater):
    """MEST's elastic mutation: drop where weight and gradient are small, grow at random."""

    changes: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Yuan et al. MEST: Accurate and Fast Memory-Economic Sparse Training Framework on the "
        "Edge. NeurIPS 2021."
    )

    gradient_weight: float = setting(
        1.0, "lambda of |w| + lambda |g|; ours, the paper leaves it open", ge=0
    )
    drop_fraction: float = changed(Updater, "drop_fraction", 0.5)
    anneal: Anneal = changed(Updater, "anneal", "linear")

    def reads(self) -> Reads:
        """Gradients of active weights."""
        return "active gradients"

    def drop_scores(self, layer: Layer) -> Tensor:
        """|w| + lambda |g|: of active weights, so sparse gradients are enough."""
        return layer.weight.abs() + self.gradient_weight * _gradient(layer).abs()


@dataclass(frozen=True)
class SRigL(RigL):
    """SRigL: RigL with equally many weights into every neuron, and neurons without use ablated.

    A neuron stays if at least `ablation` of its fan-in is salient: among the weights that stay,
    or the gradients that would be grown. The rest share the layer's budget. The last layer keeps
    its neurons.
    """

    citation: ClassVar[str] = (
        "Lasby et al. Dynamic Sparse Training with Structured Sparsity. ICLR 2024."
    )

    pattern: str = changed(Updater, "pattern", "constant_fan_in")
    ablation: float = setting(
        0.3, "salient part of the fan-in below which a neuron goes", ge=0, le=1
    )

    def exchange(self, layer: Layer, k: int) -> Tensor:
        """Ablate, then give every neuron that is left its largest weights and gradients."""
        if layer.active == layer.mask.numel():
            return layer.mask
        size, gradient = layer.weight.abs().flatten(1), _gradient(layer).abs().flatten(1)
        mask = layer.mask.flatten(1)  # (neurons, inputs)
        kept = drop_and_grow(mask, size, gradient, k, grow=0)
        salient = drop_and_grow(kept, size, gradient, 0, grow=k)
        alive = salient.sum(1) >= max(1.0, self.ablation * int(mask.sum(1).max()))  # (neurons,)
        if layer.last or not alive.any():
            alive = torch.ones_like(alive)
        fan_in = min(max(1, layer.budget // int(alive.sum())), mask.shape[1]) * alive  # (neurons,)
        stay = top_in_rows(size, kept, fan_in)
        new = stay | top_in_rows(gradient, ~stay, fan_in - stay.sum(1))
        return new.view_as(layer.mask)


def _gradient(layer: Layer) -> Tensor:
    """Return the gradient; 0 of a weight that the loss does not reach."""
    return torch.zeros_like(layer.weight) if layer.gradient is None else layer.gradient


def _in_proportion(total: int, wish: dict[str, float], room: dict[str, int]) -> dict[str, int]:
    """Split `total` in proportion to `wish`; what one has no room for goes to the others."""
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
    """Return how many of each layer's active weights are among the `total` largest of all.

    Every layer keeps one at least, a dense one everything. Ties go to earlier layers.
    """
    sizes, owners = [], []
    for i, layer in enumerate(layers):
        size = layer.weight.abs().masked_fill(~layer.mask, -1.0).flatten()
        size[slice(None) if layer.dense else size.argmax()] = torch.inf
        sizes.append(size)
        owners.append(torch.full_like(size, i, dtype=torch.long))
    size, owner = torch.cat(sizes), torch.cat(owners)
    return owner[top(size, total)].bincount(minlength=len(layers)).tolist()
