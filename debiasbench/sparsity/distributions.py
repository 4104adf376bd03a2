"""How many weights each layer keeps: exact integer budgets from shapes and a density."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from debiasbench.sparsity.errors import SparsityError, SparsityTooHigh, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Shapes = Mapping[str, Sequence[int]]
    Distribution = Callable[[Shapes, float], "Shares"]


@dataclass(frozen=True)
class Shares:
    """The result of a distribution: relative budgets of layers, and their minimum densities.

    `wish`: by layer, proportional to the number of weights it should keep. `least`: minimum density
    by layer, in [0, 1] (1: dense).
    """

    wish: Mapping[str, float]
    least: Mapping[str, float] = field(default_factory=dict)


def uniform(shapes: Shapes, density: float) -> Shares:
    """Give every layer the same density."""
    return Shares({name: float(math.prod(shape)) for name, shape in shapes.items()})


def uniform_plus(shapes: Shapes, density: float) -> Shares:
    """Uniform, except that the first layer is dense and the last keeps at least a fifth.

    Gale, Elsen, Hooker, 2019. The other layers get sparser, so that the total stays as requested.
    """
    names = list(shapes)
    least = {names[-1]: max(0.2, density)} | ({names[0]: 1.0} if len(names) > 1 else {})
    return Shares(uniform(shapes, density).wish, least)


def er(shapes: Shapes, density: float) -> Shares:
    """Erdos-Renyi: density proportional to (inputs + outputs) / (inputs * outputs).

    Mocanu et al., Nature Communications 2018. The kernel size is ignored.
    """
    return Shares({n: (s[0] + s[1]) * math.prod(s[2:]) for n, s in shapes.items()})


def erk(shapes: Shapes, density: float, power: float = 1.0) -> Shares:
    """Erdos-Renyi-kernel: density proportional to (sum(shape) / prod(shape)) ** power.

    Evci et al., ICML 2020, section 3. Power 0 is uniform.
    """
    return Shares({n: math.prod(s) ** (1 - power) * sum(s) ** power for n, s in shapes.items()})


DISTRIBUTIONS: dict[str, Distribution] = {
    "erk": erk,
    "er": er,
    "uniform": uniform,
    "uniform_plus": uniform_plus,
}


def allocate(
    shapes: Shapes,
    density: float | Mapping[str, float],
    distribution: str | Distribution = "erk",
    *,
    dense: Sequence[str] = (),
    min_nnz: int = 1,
) -> dict[str, int]:
    """Return how many weights each layer keeps; the sum is exactly round(density * weights).

    `shapes`: by layer, (out, in, *kernel). `density`: fraction of all weights kept, in (0, 1], or
    one fraction for each layer, with which `distribution` is not used. `distribution`: a name in
    `DISTRIBUTIONS`, or a function like those there. Layers in `dense` keep all weights, every other
    layer keeps at least `min_nnz`. The shares are scaled by one common factor, clipped to what a
    layer can hold, such that they sum to the request; then rounded by largest remainder.

    Raises `SparsityError` for a density outside (0, 1] or an unknown name. Raises
    `SparsityTooHigh`, which names the smallest feasible density, if the minimum densities need more
    weights than requested.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    weights = sum(sizes.values())
    if not isinstance(density, int | float):
        return _given(sizes, density)
    check_density(density)
    if missing := [name for name in dense if name not in shapes]:
        raise unknown("layer", missing[0], shapes)
    shares = _distribution(distribution)(shapes, density)
    least = {**shares.least, **dict.fromkeys(dense, 1.0)}
    floors = {n: min(max(min_nnz, math.ceil(least.get(n, 0) * s)), s) for n, s in sizes.items()}
    total, needed = round(density * weights), sum(floors.values())
    if total < needed:
        raise SparsityTooHigh(
            f"density {density:g} keeps {total} of {weights} weights, but {len(sizes)} layers need "
            f"{needed}: the smallest feasible density is {_rounded_up(needed / weights)}"
        )
    return round_to(total, _fill(total, shares.wish, floors, sizes), sizes)


def check_density(density: float) -> None:
    """Raise `SparsityError` unless `density` lies in (0, 1]."""
    if not 0 < density <= 1:
        raise SparsityError(
            f"density must be in (0, 1], not {density}: it is the fraction of weights kept"
        )


def global_budget(density: float, weights: int, needed: int) -> int:
    """Return how many of the `weights` of a whole network `density` keeps.

    Raises `SparsityTooHigh`, which names the smallest feasible density, for fewer than `needed`.
    """
    total = round(density * weights)
    if total < needed:
        raise SparsityTooHigh(
            f"density {density:g} keeps {total} of {weights} weights, but needs {needed}: "
            f"the smallest feasible density is {needed / weights:.4g}"
        )
    return total


def round_to(total: int, shares: Mapping[str, float], sizes: Mapping[str, int]) -> dict[str, int]:
    """Round `shares` by largest remainder to integers, at most `sizes`, that sum to `total`."""
    counts = {name: math.floor(share) for name, share in shares.items()}
    by_remainder = sorted(counts, key=lambda name: counts[name] - shares[name])
    missing = total - sum(counts.values())
    while missing:
        for name in by_remainder:
            if missing and counts[name] < sizes[name]:
                counts[name] += 1
                missing -= 1
    return counts


def _distribution(distribution: str | Distribution) -> Distribution:
    if not isinstance(distribution, str):
        return distribution
    if distribution not in DISTRIBUTIONS:
        raise unknown("distribution", distribution, DISTRIBUTIONS)
    return DISTRIBUTIONS[distribution]


def _given(sizes: Mapping[str, int], densities: Mapping[str, float]) -> dict[str, int]:
    for name in (*densities, *sizes):
        if name not in sizes:
            raise unknown("layer", name, sizes)
        if name not in densities:
            raise SparsityError(f"Layer {name!r} has no density: give one for every layer")
        check_density(densities[name])
    shares = {name: max(1.0, densities[name] * size) for name, size in sizes.items()}
    return round_to(round(sum(shares.values())), shares, sizes)


def _fill(
    total: int, wish: Mapping[str, float], floors: Mapping[str, int], sizes: Mapping[str, int]
) -> dict[str, float]:
    """Scale `wish` by the one factor at which the clipped shares sum to `total`."""

    def shares(factor: float) -> dict[str, float]:
        return {n: min(max(factor * wish[n], floors[n]), sizes[n]) for n in sizes}

    low, high = 0.0, max(sizes[n] / wish[n] for n in sizes)
    for _ in range(100):  # bisection: the sum grows with the factor
        middle = (low + high) / 2
        low, high = (middle, high) if sum(shares(middle).values()) < total else (low, middle)
    return shares(high)


def _rounded_up(density: float) -> str:
    """Return three significant digits that are not below `density`."""
    text = f"{density:.3g}"
    if float(text) >= density:
        return text
    step = 10.0 ** (math.floor(math.log10(density)) - 2)
    return f"{float(text) + step:.3g}"
