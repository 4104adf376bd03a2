"""Checks of what a method gives to `lab.train`; all raise `OptionError`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from debiasbench.common.errors import OptionError
from debiasbench.common.randomness import generator
from debiasbench.core.batches import Batches, OwnBatches
from debiasbench.core.data import MOMENT, NEEDED
from debiasbench.core.inputs import single
from debiasbench.core.stage import EpochChange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.core.batches import BatchFunction
    from debiasbench.core.objective import Objective
    from debiasbench.core.settings import Training
    from debiasbench.core.stage import EachEpoch, OptimizerState, Trained
    from debiasbench.core.view import View


def checked_weights(weights: Tensor | None, n: int) -> Tensor | None:
    """Return sampling weights (N,) as float64 on the CPU."""
    if weights is None:
        return None
    values = torch.as_tensor(weights, dtype=torch.double).cpu()
    if values.shape != (n,):
        raise OptionError(f"weights must be ({n},), one per sample, not {tuple(values.shape)}")
    if not (values.isfinite().all() and (values >= 0).all() and values.sum() > 0):
        raise OptionError("weights must be finite, not negative, and not all 0")
    return values


def checked_subset(subset: Tensor | None, n: int) -> Tensor | None:
    """Return indices (M,) on the CPU."""
    if subset is None:
        return None
    index = torch.as_tensor(subset).cpu()
    if index.dim() != 1 or index.dtype != torch.long or len(index) == 0:
        raise OptionError("subset must be a non-empty (M,) int64 tensor of sample indices")
    if int(index.min()) < 0 or int(index.max()) >= n:
        raise OptionError(f"subset indices must be in 0 to {n - 1}")
    return index


def drawn(view: View, batch_size: int, weights: Tensor | None, subset: Tensor | None) -> Batches:
    """Return batches of a split, drawn by weight or in random order."""
    n = len(view)
    return Batches(n, batch_size, checked_weights(weights, n), checked_subset(subset, n))


def divided(
    view: View,
    training: Training,
    seed: int,
    weights: Tensor | None,
    subset: Tensor | None,
    batches: BatchFunction | None,
    steps: int | None,
) -> Batches:
    """Return the batches of a stage."""
    if batches is None:
        return drawn(view, training.batch_size, weights, subset)
    if weights is not None or subset is not None:
        raise OptionError(
            "lab.train got batches together with weights or subset: batches alone decide which "
            "samples are used"
        )
    return OwnBatches(
        len(view),
        batches,
        lambda epoch: generator(seed, "order", epoch),
        epochs=training.epochs,
        steps=steps,
    )


def checked_each_epoch(
    each_epoch: EachEpoch, view: View, batches: Batches, extra: Mapping[str, Tensor]
) -> EachEpoch:
    """Return `each_epoch` with checks of what it returns."""
    longest = max(batches.epoch_size, len(view))

    def checked(epoch: int, objective: Objective) -> EpochChange | None:
        change = each_epoch(epoch, objective)
        if change is None:
            return None
        if not isinstance(change, EpochChange):
            raise OptionError(
                f"each_epoch returned {type(change).__name__}, must be an EpochChange or None"
            )
        own = change.weights is not None or change.subset is not None
        if own and isinstance(batches, OwnBatches):
            raise OptionError(
                "each_epoch returned weights or a subset, but the stage has batches of its own, "
                "which decide which samples are used"
            )
        subset = checked_subset(change.subset, len(view))
        if subset is not None and len(subset) > longest:
            raise OptionError(
                f"each_epoch returned a subset of {len(subset)} samples: at most {longest} are "
                "possible, as many as the split or the first epoch has"
            )
        new = checked_extra(change.extra, view)
        for name, values in new.items():
            old = extra.get(name)
            if old is None or (old.shape, old.dtype) != (values.shape, values.dtype):
                raise OptionError(
                    f"each_epoch returned extra {name!r} of shape {tuple(values.shape)} and type "
                    f"{values.dtype}, but the stage began "
                    + ("without it" if old is None else f"with {tuple(old.shape)} and {old.dtype}")
                )
        return EpochChange(checked_weights(change.weights, len(view)), subset, new)

    return checked


def optimizer_state_of(earlier: Trained | None, training: Training) -> OptimizerState | None:
    """Return the optimizer state that an earlier stage has kept."""
    if earlier is None:
        return None
    if earlier.optimizer is None:
        raise OptionError(
            "optimizer_of: the earlier stage has no optimizer state: train it with "
            "keep_optimizer=True"
        )
    if earlier.optimizer.kind != training.optimizer:
        raise OptionError(
            f"optimizer_of: the earlier stage was trained with {earlier.optimizer.kind}, this one "
            f"with {training.optimizer}: a stage can only use the state of the same optimizer"
        )
    return earlier.optimizer


def checked_extra(extra: Mapping[str, Tensor] | None, view: View) -> dict[str, Tensor]:
    """Return the extra tensors of a stage."""
    reserved = {"x", "y", "index", "beside", "visible", *MOMENT, *NEEDED}
    for name, values in (extra or {}).items():
        if name in reserved:
            raise OptionError(f"extra {name!r}: a batch already has {name!r}, so use another name")
        if len(values) != len(view):
            raise OptionError(f"extra {name!r} has {len(values)} rows for {len(view)} samples")
    return dict(extra or {})


def checked_visible(visible: Tensor | None, view: View) -> dict[str, Tensor]:
    """Return the visible pixels of a stage as an extra tensor."""
    if visible is None:
        return {}
    size = (len(view), 1, *single(view.samples.take(slice(1)), "visible").shape[2:])
    if visible.shape != size or visible.dtype != torch.bool:
        kind = str(visible.dtype).removeprefix("torch.")
        raise OptionError(
            f"visible is {tuple(visible.shape)} {kind}, must be {size} bool, a value for each pixel"
        )
    return {"visible": visible}
