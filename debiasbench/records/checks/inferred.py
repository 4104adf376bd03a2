"""What a method inferred of the training samples: counts against what is stored (E04)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.records.checks.numbers import ROUNDING, close
from debiasbench.records.checks.predictions import counted, different_counts, whole_numbers
from debiasbench.records.inference import INFERRED, Inference, count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from debiasbench.records.record import Record

    Stored = Mapping[str, NDArray[Any]]


def inference(record: Record, stored: Stored) -> Iterator[str]:
    """Compare what was counted of a method's inferences with what is stored beside the record."""
    found = {k.removeprefix(INFERRED): v for k, v in stored.items() if k.startswith(INFERRED)}
    if record.inference is None:
        if found:
            yield "the predictions hold what the method inferred, but the record does not"
        return
    counts, stated = record.task.group_counts["train"], record.inference
    y, group = (whole_numbers(stored, f"train.{name}", sum(counts)) for name in ("y", "group"))
    if y is None or group is None or group.max() >= len(counts):
        yield f"the predictions lack the labels of the {sum(counts)} samples of train"
        return
    if (y != group // np.int64(len(record.task.biases))).any():
        yield "the classes and the groups in the predictions of train do not agree"
    if different := different_counts(record, counts, counted(group, len(counts))):
        yield f"group counts of train: {different}, by the labels in the predictions"
    for name, values in found.items():
        if not _is_inferred(name, values, sum(counts)):
            yield f"{INFERRED}{name} in the predictions is nothing that a method can infer"
            return
    if "groups" in found and len(np.unique(found["groups"])) != len(stated.groups or ()):
        yield "the counts of pseudo-groups are not those in the predictions"
        return
    found_counts = count(found, group, record.task.splits["train"].aligned, stated.stages)
    if found_counts.conflict != stated.conflict:
        yield "the samples taken for conflicting are not those in the predictions"
    if found_counts.groups != stated.groups:
        yield "the counts of pseudo-groups are not those in the predictions"
    if not _same_area(found_counts, stated):
        yield f"the AUC is {stated.auc}, but the scores in the predictions give {found_counts.auc}"


def _is_inferred(name: str, values: NDArray[Any], number: int) -> bool:
    kinds = {"groups": "ui", "conflict": "b", "scores": "f"}
    fits = values.shape == (number,) and values.dtype.kind in kinds.get(name, "")
    return fits and not (name == "scores" and bool(np.isnan(values).any()))


def _same_area(counted: Inference, stated: Inference) -> bool:
    if counted.auc is None or stated.auc is None:
        return counted.auc is stated.auc
    return close(stated.auc, counted.auc, ROUNDING)
