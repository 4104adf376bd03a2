"""First masks, at random or by a score of every weight, with exact numbers of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from debiasbench.sparsity.distributions import allocate, global_budget
from debiasbench.sparsity.errors import SparsityError, unknown
from debiasbench.sparsity.params import select
from debiasbench.sparsity.topology import keyed_generator, random_mask, top

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor, nn

    from debiasbench.sparsity.layout import Layout
    from debiasbench.sparsity.patterns import Pattern


class MaskSettings(Protocol):
    """What `first_masks` reads of an updater."""

    @property
    def init(self) -> str:
        """Where first masks come from: random, magnitude, global_magnitude, snip, ..."""

    @property
    def density(self) -> float:
        """Fraction of weights kept at the end, in (0, 1]."""

    @property
    def pattern(self) -> str:
        """Name of the pattern that `rows` returns."""

    def rows(self) -> Pattern | None:
        """Return where active weights may lie; None: anywhere."""

    def first_density(self) -> float:
        """Return the fraction of weights kept before the first update, in (0, 1]."""

    def budgets(
        self, shapes: Mapping[str, Sequence[int]], density: float, dense: Sequence[str] = ()
    ) -> dict[str, int]:
        """Return how many weights each layer keeps at `density`."""


def magnitude_scores(model: nn.Module) -> dict[str, Tensor]:
    """Return |w| of every maskable weight."""
    return {name: p.detach().abs() for name, p in select(model).items()}


def snip_scores(
    model: nn.Module, loss: Callable[[], Tensor], *, reinitialise: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Return |w * dL/dw|, an estimate of how much the loss changes without the weight.

    SNIP (Lee et al., ICLR 2019). `loss`: computes the loss with `model`. `reinitialise`: score
    newly drawn weights (Xavier normal) instead of the current ones, as the authors' code does; the
    weights of `model` are restored afterwards.
    """
    weights = select(model)
    before = {name: p.detach().clone() for name, p in weights.items()}
    try:
        if reinitialise is not None:
            for p in weights.values():
                torch.nn.init.xavier_normal_(p, generator=reinitialise)
        gradients = _gradients(loss(), weights)
        return {n: (weights[n].detach() * g).abs() for n, g in gradients.items()}
    finally:
        with torch.no_grad():
            for name, p in weights.items():
                p.copy_(before[name])


def grasp_scores(model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Return w * (H g), the contribution of the weight to the gradient flow; keep the highest.

    GraSP (Wang, Zhang, Grosse, ICLR 2020, equation 8, with the sign for which the highest scores
    are kept). The authors divide the logits by 200 inside `loss` and use equally many samples of
    each class.
    """
    weights = select(model)
    gradients = _gradients(loss(), weights, create_graph=True)
    flow = sum((g.detach() * g).sum() for g in gradients.values())
    assert isinstance(flow, torch.Tensor)  # `select` found weights
    return {n: weights[n].detach() * h for n, h in _gradients(flow, weights).items()}


def global_masks(
    scores: Mapping[str, Tensor], density: float, *, min_nnz: int = 1, dense: Iterable[str] = ()
) -> dict[str, Tensor]:
    """Keep the highest scores of the whole network: exactly round(density * weights).

    Every layer keeps at least `min_nnz` weights, and a layer in `dense` keeps all. Among equal
    scores, also zeros, earlier weights are kept; ties never change the count. Raises
    `SparsityTooHigh`, which names the smallest feasible density.
    """
    keep_all = set(dense)
    lifted = []
    for name, score in scores.items():
        flat = score.detach().flatten().float().clone()
        floor = len(flat) if name in keep_all else min(min_nnz, len(flat))
        flat[top(flat, floor)] = torch.inf
        lifted.append(flat)
    joined = torch.cat(lifted)
    total = global_budget(density, len(joined), int(joined.isposinf().sum()))
    parts = torch.split(top(joined, total), [len(flat) for flat in lifted])
    return {n: part.view_as(scores[n]).clone() for n, part in zip(scores, parts, strict=True)}


def first_masks(
    updater: MaskSettings,
    weights: Mapping[str, nn.Parameter],
    layouts: Mapping[str, Layout],
    dense: set[str],
    seed: int,
    densities: Mapping[str, float] | None = None,
    masks: Mapping[str, Tensor] | None = None,
    gradients: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the masks at the start of training, according to the updater's `init`.

    `layouts`: of the weights, which patterns depend on. `densities`: by layer, instead of the
    updater's density. `masks`: used as they are. If `init` needs `gradients` and there are none
    yet, all masks are ones.
    """
    if masks is not None:
        return _given(masks, weights)
    by_gradient = updater.init.startswith("snip")
    if by_gradient and gradients is None:
        _budgets(updater, weights, layouts, dense, densities)  # raises now if infeasible
        return {n: torch.ones_like(p, dtype=torch.bool) for n, p in weights.items()}
    if updater.init == "random":
        budgets = _budgets(updater, weights, layouts, dense, densities)
        return _random(updater, weights, layouts, budgets, seed)
    scores = {
        name: (p.detach() * (gradients or {}).get(name, 0)).abs()
        if by_gradient
        else p.detach().abs()
        for name, p in weights.items()
    }
    if updater.init in {"snip", "global_magnitude"}:
        if updater.rows() is not None or densities is not None:
            raise SparsityError(
                f"init={updater.init} ranks the weights of all layers together, so it cannot be "
                "combined with a pattern or with densities by layer: use init=random, magnitude or "
                "snip_per_layer"
            )
        return global_masks(scores, updater.first_density(), dense=dense)
    pattern, budgets = updater.rows(), _budgets(updater, weights, layouts, dense, densities)
    return {
        name: top(score, budgets[name])
        if pattern is None or budgets[name] == score.numel()
        else layouts[name].stored(pattern.best(layouts[name].by_output(score), budgets[name]))
        for name, score in scores.items()
    }


def _budgets(
    updater: MaskSettings,
    weights: Mapping[str, nn.Parameter],
    layouts: Mapping[str, Layout],
    dense: set[str],
    densities: Mapping[str, float] | None,
) -> dict[str, int]:
    """Return the number of active weights of each layer, as the pattern allows."""
    shapes = {name: layouts[name].shape(p.shape) for name, p in weights.items()}
    pattern = updater.rows()
    if pattern is not None and pattern.n is not None and pattern.m is not None:
        if abs(updater.density - pattern.n / pattern.m) > 1e-9 or densities is not None:
            raise SparsityError(
                f"pattern {updater.pattern} has density {pattern.n / pattern.m:g}, not "
                f"{updater.density:g}: set density={pattern.n / pattern.m:g}"
            )
        budgets = {name: p.numel() if name in dense else 0 for name, p in weights.items()}
    elif densities is not None:
        return allocate(shapes, densities)
    else:
        budgets = updater.budgets(shapes, updater.first_density(), sorted(dense))
    if pattern is None:
        return budgets
    return {
        name: budget if budget == weights[name].numel() else pattern.nnz(name, shapes[name], budget)
        for name, budget in budgets.items()
    }


def _random(
    updater: MaskSettings,
    weights: Mapping[str, nn.Parameter],
    layouts: Mapping[str, Layout],
    budgets: Mapping[str, int],
    seed: int,
) -> dict[str, Tensor]:
    pattern, masks = updater.rows(), {}
    for name, p in weights.items():
        rng = keyed_generator(seed, "init", name)
        if pattern is None or budgets[name] == p.numel():
            mask = random_mask(p.shape, budgets[name], rng)
        else:
            scores = torch.rand(layouts[name].shape(p.shape), generator=rng)
            mask = layouts[name].stored(pattern.best(scores, budgets[name]))
        masks[name] = mask.to(p.device)
    return masks


def _given(masks: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    for name in {**weights, **masks}:
        if name not in weights:
            raise unknown("layer", name, weights)
        if name not in masks:
            raise SparsityError(f"Layer {name!r} has no mask: give one for every layer")
        if masks[name].shape != weights[name].shape:
            raise SparsityError(
                f"The mask of {name} must have shape {tuple(weights[name].shape)}, not "
                f"{tuple(masks[name].shape)}"
            )
    return {name: masks[name].bool().clone().to(p.device) for name, p in weights.items()}


def _gradients(
    loss: Tensor, weights: Mapping[str, nn.Parameter], *, create_graph: bool = False
) -> dict[str, Tensor]:
    """Return the gradient by weight name; 0 for weights that `loss` does not depend on."""
    gradients = torch.autograd.grad(
        loss, list(weights.values()), create_graph=create_graph, allow_unused=True
    )
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(weights.items(), gradients, strict=True)
    }
