"""The predictions beside a record: the file itself (E02), and the hits that follow (E04)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.common.errors import RecordError
from debiasbench.records.beside import content, location, most_bytes, prediction_key
from debiasbench.records.checks.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from debiasbench.records.record import Result

    Stored = Mapping[str, NDArray[Any]]


def stored_predictions(path: Path, record: Result) -> tuple[Stored | None, str | None]:
    """Return the content of the predictions file, or what is wrong with the file."""
    if record.predictions is None:
        return None, None
    from safetensors.numpy import load

    try:
        return load(content(path, record.predictions, most_bytes(record))), None
    except RecordError as error:
        return None, str(error)
    except Exception as error:  # whatever the reader raises for a file that somebody made
        file = location(path, record.predictions).name
        return None, f"{file} is not a predictions file ({error})"


def predictions(record: Result, stored: Stored) -> Iterator[Finding]:
    """Compare group counts with the labels beside a record, and hits with its predictions."""
    for split in record.judged:
        counts = record.task.group_counts[split]
        y, group = (
            whole_numbers(stored, f"{split}.{name}", sum(counts)) for name in ("y", "group")
        )
        if y is None or group is None or group.max() >= len(counts):
            yield Finding(
                "E02", f"the predictions lack the labels of the {sum(counts)} samples of {split}"
            )
            continue
        if (y != group // np.int64(len(record.task.biases))).any():
            yield Finding(
                "E04", f"the classes and the groups in the predictions of {split} do not agree"
            )
        if different := different_counts(record, counts, counted(group, len(counts))):
            yield Finding(
                "E04", f"group counts of {split}: {different}, by the labels in the predictions"
            )
        right: dict[str, list[int] | None] = {}  # hits by key; rules that keep an epoch share it
        for rule, outcome in record.outcomes.items():
            key = f"{split}.{prediction_key(outcome.epoch)}"
            if key not in right:
                predicted = whole_numbers(stored, key, sum(counts))
                right[key] = (
                    None if predicted is None else counted(group[predicted == y], len(counts))
                )
            if (found := right[key]) is None:
                yield Finding("E02", f"the predictions lack {key}, which {rule} needs")
                continue
            hits = getattr(outcome, split).hits
            if different := different_counts(record, hits, found):
                yield Finding("E04", f"hits of {rule} in {split}: {different}, by the predictions")


def whole_numbers(
    stored: Mapping[str, NDArray[np.integer]], key: str, number: int
) -> NDArray[np.integer] | None:
    """Return an array of `number` whole numbers from 0 on, None if there is no such array."""
    array = stored.get(key)
    if array is None or array.shape != (number,) or array.dtype.kind not in "ui":
        return None
    if array.dtype in (np.uint8, np.uint16, np.uint32):
        return array
    values = array.astype(np.int64)  # the largest numbers of 64 bits become negative
    return None if values.min() < 0 else values


def counted(groups: NDArray[np.integer], number: int) -> list[int]:
    """Count the samples of each group."""
    counts: list[int] = np.bincount(groups, minlength=number).tolist()
    return counts


def different_counts(record: Result, stated: list[int], counted: list[int]) -> str:
    """Name the first group whose stated count is not the counted one, and how many others."""
    if counted == stated:
        return ""
    differing = [g for g, count in enumerate(counted) if count != stated[g]]
    first, biases = differing[0], record.task.biases
    name = f"class {record.task.classes[first // len(biases)]}, bias {biases[first % len(biases)]}"
    more = f" and {len(differing) - 1} more groups differ" if len(differing) > 1 else ""
    return f"{stated[first]} instead of {counted[first]} in group {first} ({name}){more}"
