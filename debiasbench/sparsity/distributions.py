"""How many weights each layer keeps: shapes and a density in, exact integer budgets out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Distribution = Literal["erk", "uniform"]


class SparsityTooHigh(ValueError):  # noqa: N818 - it says what is wrong
    """A density at which some layer would keep fewer weights than it must."""


def allocate(
    shapes: Mapping[str, Sequence[int]],
    density: float,
    distribution: Distribution = "erk",
    *,
    min_nnz: int = 1,
) -> dict[str, int]:
    """Return how many weights each layer keeps.

    `density`: fraction of all weights kept, in (0, 1]; the sum of the budgets is exactly
    round(density * weights). Every layer keeps at least `min_nnz` and at most all it has.
    "uniform" gives every layer the same density, "erk" one in proportion to
    sum(shape) / prod(shape) (Erdos-Renyi-kernel; Evci et al., ICML 2020, section 3), and what
    layers that are full cannot take goes to the others.

    Raises `ValueError` for a density outside (0, 1] and `SparsityTooHigh`, naming the smallest
    feasible density, where `min_nnz` cannot be had.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must lie in (0, 1], not {density}")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    floors = {name: min(min_nnz, size) for name, size in sizes.items()}
    weights, least = sum(sizes.values()), sum(floors.values())
    total = round(density * weights)
    if total < least:
        raise SparsityTooHigh(
            f"density {density:g} keeps {total} of {weights} weights, but {len(sizes)} layers need "
            f"{least}: the smallest feasible density is {least / weights:.3g}"
        )
    match distribution:
        case "erk":
            wish = {name: float(sum(shape)) for name, shape in shapes.items()}
        case "uniform":
            wish = {name: float(size) for name, size in sizes.items()}
        case _:
            raise ValueError(f"Unknown distribution {distribution!r}. Available: erk, uniform")
    return _round_to(total, _fill(total, wish, floors, sizes), sizes)


def _fill(
    total: int, wish: Mapping[str, float], floors: Mapping[str, int], sizes: Mapping[str, int]
) -> dict[str, float]:
    """Scale `wish` by the one factor at which the clipped shares sum to `total`."""

    def shares(factor: float) -> dict[str, float]:
        return {n: min(max(factor * wish[n], floors[n]), sizes[n]) for n in wish}

    low, high = 0.0, max(sizes[n] / wish[n] for n in wish)
    for _ in range(100):  # the sum grows with the factor, so bisection finds it
        middle = (low + high) / 2
        low, high = (middle, high) if sum(shares(middle).values()) < total else (low, middle)
    return shares(high)


def _round_to(total: int, shares: Mapping[str, float], sizes: Mapping[str, int]) -> dict[str, int]:
    """Round to integers that sum to `total`, by largest remainder."""
    counts = {name: math.floor(share) for name, share in shares.items()}
    by_remainder = sorted(counts, key=lambda name: counts[name] - shares[name])
    missing = total - sum(counts.values())
    while missing:
        for name in by_remainder:
            if missing and counts[name] < sizes[name]:
                counts[name] += 1
                missing -= 1
    return counts
