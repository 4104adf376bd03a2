"""Which parameters may be sparse: weights of convolution, linear and attention layers, by type."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torch import nn

from debiasbench.sparsity.errors import SparsityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MASKABLE = (
    nn.Linear,
    nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def maskable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the maskable weights of a module by name, in module order; a shared one once.

    Chosen by the type of the layer that owns them, never by name: normalisations, embeddings
    and biases stay out, the packed projections of `nn.MultiheadAttention` come in.
    """
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for prefix, layer in module.named_modules():
        for own, weight in _weights(layer):
            if id(weight) not in seen and weight.ndim >= 2:
                seen.add(id(weight))
                found[f"{prefix}.{own}" if prefix else own] = weight
    return found


def select(
    module: nn.Module, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> dict[str, nn.Parameter]:
    """Return the maskable weights whose names match `include` (empty: all) and not `exclude`.

    Both hold patterns as the shell knows them: "layer4.*", "*.fc.weight".
    Raises `SparsityError` for a pattern that matches nothing, and if nothing is left.
    """
    found = maskable(module)
    if not found:
        raise SparsityError(
            f"{type(module).__name__} has no convolution or linear layer to make sparse"
        )
    wanted = matching_any(include, found) if include else set(found)
    unwanted = matching_any(exclude, found)
    left = {name: weight for name, weight in found.items() if name in wanted - unwanted}
    if not left:
        raise SparsityError(
            f"Of {len(found)} layers, include and exclude leave none to make sparse"
        )
    return left


def matching_any(patterns: Sequence[str], names: Iterable[str]) -> set[str]:
    """Return the names that a shell pattern matches.

    Raises `SparsityError` for a pattern that matches none, as a misspelt one does.
    """
    known, found = list(names), set()
    for pattern in patterns:
        matches = [name for name in known if fnmatchcase(name, pattern)]
        if not matches:
            raise SparsityError(f"No layer matches {pattern!r}; there are {', '.join(known)}")
        found.update(matches)
    return found


def _weights(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    if isinstance(layer, MASKABLE):
        weight = layer.weight
        if isinstance(weight, nn.Parameter):  # a parametrized weight is computed, not stored
            yield "weight", weight
    if isinstance(layer, nn.MultiheadAttention):
        for own in ATTENTION:
            projection = getattr(layer, own)
            if isinstance(projection, nn.Parameter):
                yield own, projection
