"""First masks: at random or by a score of every connection, in exact numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from debiasbench.sparsity.distributions import allocate
from debiasbench.sparsity.errors import SparsityError, SparsityTooHigh
from debiasbench.sparsity.params import select
from debiasbench.sparsity.topology import keyed_generator, random_mask, top

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor, nn

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
    """|w| of every weight that may be sparse."""
    return {name: p.detach().abs() for name, p in select(model).items()}


def snip_scores(
    model: nn.Module, loss: Callable[[], Tensor], *, reinitialise: torch.Generator | None = None
) -> dict[str, Tensor]:
    """|w * dL/dw|: by how much the loss would change without the connection.

    SNIP (Lee et al., ICLR 2019), on the weights as they are and the loss that `loss` computes with
    `model`. `reinitialise`: score weights drawn anew (Xavier normal) instead, as the authors'
    code does; the model gets its own back.
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
    """w * (H g): how much the connection helps the gradient to flow; keep the highest.

    GraSP (Wang, Zhang, Grosse, ICLR 2020, equation 8, with the sign that keeps the highest). The
    authors divide logits by 200 inside the loss and draw as many samples from each class.
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

    Every layer keeps `min_nnz`, one in `dense` everything; ties, zeros included, go to earlier
    weights and never change the count. Raises `SparsityTooHigh`.
    """
    keep_all = set(dense)
    lifted = []
    for name, score in scores.items():
        flat = score.detach().flatten().float().clone()
        floor = len(flat) if name in keep_all else min(min_nnz, len(flat))
        flat[top(flat, floor)] = torch.inf
        lifted.append(flat)
    joined = torch.cat(lifted)
    total, needed = round(density * len(joined)), int(joined.isposinf().sum())
    if total < needed:
        raise SparsityTooHigh(
            f"density {density:g} keeps {total} of {len(joined)} weights, but {needed} are due: "
            f"the smallest feasible density is {needed / len(joined):.4g}"
        )
    parts = torch.split(top(joined, total), [len(flat) for flat in lifted])
    return {n: part.view_as(scores[n]).clone() for n, part in zip(scores, parts, strict=True)}


def first_masks(
    updater: MaskSettings,
    weights: Mapping[str, nn.Parameter],
    dense: set[str],
    seed: int,
    densities: Mapping[str, float] | None = None,
    masks: Mapping[str, Tensor] | None = None,
    gradients: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the masks that a training begins with, by the updater's `init`.

    All ones where that needs `gradients` and there are none yet.
    """
    if masks is not None:
        return _given(masks, weights)
    by_gradient = updater.init.startswith("snip")
    if by_gradient and gradients is None:
        _budgets(updater, weights, dense, densities)  # what is infeasible shall be said now
        return {n: torch.ones_like(p, dtype=torch.bool) for n, p in weights.items()}
    if updater.init == "random":
        return _random(updater, weights, _budgets(updater, weights, dense, densities), seed)
    scores = {
        name: (p.detach() * (gradients or {}).get(name, 0)).abs()
        if by_gradient
        else p.detach().abs()
        for name, p in weights.items()
    }
    if updater.init in {"snip", "global_magnitude"}:
        if updater.rows() is not None or densities is not None:
            raise SparsityError(
                f"init={updater.init} shares weights over all layers, which a pattern or densities "
                "by layer exclude: take random, magnitude or snip_per_layer"
            )
        return global_masks(scores, updater.first_density(), dense=dense)
    pattern, budgets = updater.rows(), _budgets(updater, weights, dense, densities)
    return {
        name: top(score, budgets[name])
        if pattern is None or budgets[name] == score.numel()
        else pattern.best(score, budgets[name])
        for name, score in scores.items()
    }


def _budgets(
    updater: MaskSettings,
    weights: Mapping[str, nn.Parameter],
    dense: set[str],
    densities: Mapping[str, float] | None,
) -> dict[str, int]:
    shapes, pattern = {name: p.shape for name, p in weights.items()}, updater.rows()
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
    budgets: Mapping[str, int],
    seed: int,
) -> dict[str, Tensor]:
    pattern, masks = updater.rows(), {}
    for name, p in weights.items():
        rng = keyed_generator(seed, "init", name)
        if pattern is None or budgets[name] == p.numel():
            mask = random_mask(p.shape, budgets[name], rng)
        else:
            mask = pattern.best(torch.rand(p.shape, generator=rng), budgets[name])
        masks[name] = mask.to(p.device)
    return masks


def _given(masks: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    for name in {**weights, **masks}:
        if name not in weights or name not in masks or masks[name].shape != weights[name].shape:
            raise SparsityError(f"The masks given do not fit the model's layers, first at {name}")
    return {name: masks[name].bool().clone().to(p.device) for name, p in weights.items()}


def _gradients(
    of: Tensor, weights: Mapping[str, nn.Parameter], *, create_graph: bool = False
) -> dict[str, Tensor]:
    found = torch.autograd.grad(
        of, list(weights.values()), create_graph=create_graph, allow_unused=True
    )
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(weights.items(), found, strict=True)
    }
