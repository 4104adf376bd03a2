"""Which parameters may be sparse: the weights of convolution, linear and attention layers."""

from __future__ import annotations

from collections import defaultdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torch import nn

from debiasbench.sparsity.errors import SparsityError
from debiasbench.sparsity.layout import Layout, layout_of
from debiasbench.sparsity.names import joined, named_modules, named_parameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MASKABLE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def maskable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the maskable weights of a module by name, in module order; a shared weight once.

    The type of the layer decides, never the name: weights of convolution and linear layers are
    maskable, and the packed projections of `nn.MultiheadAttention`. Normalisation layers,
    embeddings, recurrent layers and biases are not; but the weight of a linear layer is also
    maskable if an embedding shares it. Names do not contain the prefixes of wrappers such as
    `torch.compile`.
    """
    return {name: weight for name, weight, _ in _maskable(module)}


def layouts(module: nn.Module) -> dict[str, Layout]:
    """Return the layout of every maskable weight of a module by name."""
    return {name: layout_of(layer) for name, _, layer in _maskable(module)}


def select(
    module: nn.Module, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> dict[str, nn.Parameter]:
    """Return the weights to make sparse: those that match `include` (empty: all), not `exclude`.

    Both hold shell patterns: "layer4.*", "*.fc.weight". Frozen weights, which require no gradient,
    are not selected.
    Raises `SparsityError` for a pattern that matches nothing, if no weight is selected, and for a
    selected layer whose weight is computed (weight_norm, pruning) or not initialised yet: a mask
    on what it is computed from would not be a mask on the weight.
    """
    weights: dict[str, nn.Parameter | None] = {**maskable(module), **_without_weights(module)}
    if not weights:
        raise SparsityError(
            f"{type(module).__name__} has no convolution or linear layer to make sparse"
        )
    wanted = matching_any(include, weights) if include else set(weights)
    unwanted = matching_any(exclude, weights)
    chosen = {name: weight for name, weight in weights.items() if name in wanted - unwanted}
    if computed := [name for name, weight in chosen.items() if weight is None]:
        raise SparsityError(
            f"{', '.join(computed)} cannot be made sparse: the weight is computed from other "
            "parameters, or not initialised. Remove the parametrization, run a forward pass first, "
            "or exclude the layer"
        )
    selected = {n: w for n, w in chosen.items() if w is not None and w.requires_grad}
    if not selected:
        raise SparsityError(
            f"include and exclude select none of the {len(weights)} layers that are trained: leave "
            "at least one"
        )
    return selected


def left_dense(module: nn.Module, sparse: Mapping[str, nn.Parameter]) -> tuple[str, ...]:
    """Return the names of the weights of two or more dimensions that are not `sparse`.

    These belong to embeddings, recurrent layers, frozen and excluded layers, or are parameters that
    a weight is computed from.
    """
    masked = {id(weight) for weight in sparse.values()}
    return tuple(
        name
        for name, p in named_parameters(module)
        if id(p) not in masked and not isinstance(p, nn.UninitializedParameter) and p.ndim >= 2
    )


def tied(module: nn.Module, sparse: Mapping[str, nn.Parameter]) -> dict[str, tuple[str, ...]]:
    """Return the other names of those `sparse` weights that several modules share."""
    names: dict[int, list[str]] = defaultdict(list)
    for prefix, layer in named_modules(module):
        for name, p in layer._parameters.items():
            names[id(p)].append(joined(prefix, name))
    others = {n: tuple(m for m in names[id(p)] if m != n) for n, p in sparse.items()}
    return {name: shared for name, shared in others.items() if shared}


def matching_any(patterns: Sequence[str], names: Iterable[str]) -> set[str]:
    """Return the names that any of the shell patterns matches.

    Raises `SparsityError` for a pattern that matches no name, for example a misspelt one.
    """
    known, matching = list(names), set()
    for pattern in patterns:
        matches = [name for name in known if fnmatchcase(name, pattern)]
        if not matches:
            raise SparsityError(f"No layer matches {pattern!r}. Available: {', '.join(known)}")
        matching.update(matches)
    return matching


def _without_weights(module: nn.Module) -> dict[str, None]:
    """Return the names of maskable layers' weights that are not stored as initialised parameters.

    `weight_norm`, `spectral_norm`, orthogonal parametrizations and torch's pruning compute them;
    lazy layers have none before their first forward pass.
    """
    names: dict[str, None] = {}
    for prefix, layer in named_modules(module):
        if isinstance(layer, MASKABLE) and (
            not isinstance(layer.weight, nn.Parameter)
            or isinstance(layer.weight, nn.UninitializedParameter)
        ):
            names[joined(prefix, "weight")] = None
    return names


def _maskable(module: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Yield name, weight and layer of every maskable weight; a shared weight with its first."""
    seen: set[int] = set()
    for prefix, layer in named_modules(module):
        for name, weight in _weights(layer):
            if id(weight) not in seen and weight.ndim >= 2:
                seen.add(id(weight))
                yield joined(prefix, name), weight, layer


def _weights(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    if isinstance(layer, MASKABLE):
        weight = layer.weight
        lazy = isinstance(weight, nn.UninitializedParameter)
        if isinstance(weight, nn.Parameter) and not lazy:  # a parametrized weight is computed
            yield "weight", weight
    if isinstance(layer, nn.MultiheadAttention):
        for name in ATTENTION:
            projection = getattr(layer, name)
            if isinstance(projection, nn.Parameter):
                yield name, projection
