"""What a method inferred of the training samples, compared with their true groups; without torch.

`count` makes counts of what is stored beside a record, and `judge` makes numbers of the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.common.canonical import Strict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from debiasbench.records.metrics import GroupCounts

INFERRED = "train.inferred."  # before "groups", "conflict" or "scores" in a predictions file
NUMBERS = ("conflict_recall", "conflict_precision", "worst_group_recall", "auc")
"""What `judge` computes, each in [0, 1] or NaN."""


@dataclass(frozen=True)
class Inference(Strict):
    """Counts of what a method inferred of the training samples; None: nothing of the kind.

    G true groups, group = y * B + bias. P pseudo-groups, of those that have a sample, ascending.
    """

    stages: int  # training stages that had ended when the method declared it
    conflict: list[int] | None = None  # (G,) samples of each group that it takes for conflicting
    groups: list[list[int]] | None = None  # (P, G) samples of each pseudo-group in each true group
    auc: float | None = None  # of the scores; NaN without conflicting or aligned samples


def count(
    columns: Mapping[str, NDArray[Any]],
    group: NDArray[np.integer],
    aligned: NDArray[np.bool_],
    stages: int,
) -> Inference:
    """Count what was inferred of N training samples against their true groups.

    `columns`: "groups" (N,) whole numbers, "conflict" (N,) bool, "scores" (N,) not NaN; one of them
    or several. `group`: (N,) true groups. `aligned`: (C, B).
    """
    g, true = aligned.size, group.astype(np.int64)
    conflict = groups = auc = None
    if "conflict" in columns:
        conflict = np.bincount(true[columns["conflict"]], minlength=g).tolist()
    if "groups" in columns:
        names, pseudo = np.unique(columns["groups"], return_inverse=True)
        table = np.bincount(pseudo * g + true, minlength=len(names) * g)
        groups = table.reshape(-1, g).tolist()
    if "scores" in columns:
        auc = area_under_curve(columns["scores"], ~aligned.ravel()[true])
    return Inference(stages, conflict, groups, auc)


def judge(inference: Inference, train: GroupCounts) -> dict[str, float]:
    """Compute the `NUMBERS` of an inference; NaN for what was not inferred or is undefined.

    `train`: the counts of the training split. Samples that are taken for conflicting are those that
    the method says; if it only inferred pseudo-groups, all samples outside the largest pseudo-group
    of their class.
    """
    recall = precision = worst = area = float("nan")
    if (flagged := _flagged(inference, train)) is not None:
        conflicting = ~train.aligned
        found = flagged[conflicting].sum()
        recall = _ratio(found, train.totals[conflicting].sum())
        precision = _ratio(found, flagged.sum())
        false = _ratio(flagged[train.aligned].sum(), train.totals[train.aligned].sum())
        area = (1 + recall - false) / 2  # of two values, ties count half
    if inference.auc is not None:
        area = inference.auc
    if (recalls := _group_recalls(inference, train)) is not None:
        worst = float(np.nanmin(recalls))
    return dict(zip(NUMBERS, (recall, precision, worst, area), strict=True))


def area_under_curve(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return how often a positive sample has a larger score than another; equal ones count half.

    (N,) each. NaN if there are only positive samples, or none.
    """
    values, rank = np.unique(scores, return_inverse=True)
    above = np.bincount(rank[positive], minlength=len(values))  # positive samples by score
    below = np.bincount(rank[~positive], minlength=len(values))
    smaller = below.cumsum() - below
    halves = int((above * (2 * smaller + below)).sum())
    pairs = int(above.sum()) * int(below.sum())
    return halves / (2 * pairs) if pairs else float("nan")


def _flagged(inference: Inference, train: GroupCounts) -> NDArray[np.int64] | None:
    """Return the (C, B) samples that the method takes for conflicting, by true group."""
    if inference.conflict is not None:
        return np.array(inference.conflict, dtype=np.int64).reshape(train.totals.shape)
    if inference.groups is None:
        return None
    table = _table(inference.groups, train)
    largest = table.sum(axis=2).argmax(axis=0)  # (C,) the first of equal ones
    kept: NDArray[np.int64] = table[largest, np.arange(len(train.totals))]
    return train.totals - kept


def _group_recalls(inference: Inference, train: GroupCounts) -> NDArray[np.float64] | None:
    """Return the (C, B) part of each true group that was recovered; NaN for an empty one.

    With pseudo-groups, each true group has at most one of them, and each pseudo-group is given to
    at most one true group of a class, so that the sum of the recovered parts is largest. Without,
    the part of an aligned group that is not taken for conflicting, and of another that is.
    """
    shares = np.full(train.totals.shape, np.nan)
    present = train.totals > 0
    if inference.groups is not None:
        from scipy.optimize import linear_sum_assignment

        table = _table(inference.groups, train)
        for c, there in enumerate(present):
            parts = table[:, c, there] / train.totals[c, there]  # (P, groups of the class)
            pseudo, true = linear_sum_assignment(parts, maximize=True)
            recovered = np.zeros(parts.shape[1])
            recovered[true] = parts[pseudo, true]
            shares[c, there] = recovered
        return shares
    if (flagged := _flagged(inference, train)) is None:
        return None
    right = np.where(train.aligned, train.totals - flagged, flagged)
    np.divide(right, train.totals, out=shares, where=present)
    return shares


def _table(groups: list[list[int]], train: GroupCounts) -> NDArray[np.int64]:
    return np.array(groups, dtype=np.int64).reshape(-1, *train.totals.shape)  # (P, C, B)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
