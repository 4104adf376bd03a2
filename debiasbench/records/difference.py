"""How two records differ: specs, code and machines, results, and single test samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.common.errors import RecordError
from debiasbench.records.beside import read_predictions
from debiasbench.records.metrics import accuracies
from debiasbench.records.record import test_counts
from debiasbench.records.selection import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from debiasbench.records.record import Record

TIMES = ("provenance.started", "cost.wall_seconds", "cost.images_per_second")  # always differ
ABSENT = "absent"


@dataclass(frozen=True)
class Differing:
    """A value that two records do not share."""

    name: str
    first: object
    second: object


@dataclass(frozen=True)
class GroupDifference:
    """Test samples of a group that only the first run, or only the second, has right."""

    group: str
    samples: int
    only_first: int
    only_second: int


def differing(first: Record, second: Record) -> list[Differing]:
    """Return the values of spec, supervision, data, code, machine and cost that differ.

    Those that differ between any two runs, such as the time, are left out.
    """
    parts = ("spec", "supervision", "task", "provenance", "status", "failure", "cost")
    one, other = (
        dict(_flat({part: data[part] for part in parts})) for data in map(asdict, (first, second))
    )
    return [
        Differing(name, one.get(name, ABSENT), other.get(name, ABSENT))
        for name in dict.fromkeys([*one, *other])
        if name not in TIMES and repr(one.get(name, ABSENT)) != repr(other.get(name, ABSENT))
    ]


def _flat(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    elif value != {}:
        yield name, value


def accuracies_by_rule(record: Record) -> dict[str, dict[str, float]]:
    """Return the accuracies on the test split by selection rule, in the order of `RULES`."""
    return {
        rule: accuracies(test_counts(record, record.outcomes[rule]))
        for rule in RULES
        if rule in record.outcomes
    }


def samples(
    first: tuple[Path, Record], second: tuple[Path, Record], rule: str
) -> list[GroupDifference]:
    """Compare which test samples two runs have right under a selection rule, group by group.

    Raises `RecordError` if one of them has no predictions, or if the samples are not the same.
    """
    stored: list[Mapping[str, Any]] = [
        read_predictions(path, record, rule, "test") for path, record in (first, second)
    ]
    one, other = stored
    if any(not np.array_equal(one[name], other[name]) for name in ("y", "group")):
        raise RecordError("The two runs were tested on different samples")
    a, b = (values["predicted"] == values["y"] for values in stored)
    task = first[1].task
    found = []
    for number in np.unique(one["group"]).tolist():
        own = one["group"] == number
        y, bias = divmod(number, len(task.biases))
        found.append(
            GroupDifference(
                f"{task.classes[y]} with {task.biases[bias]}",
                int(own.sum()),
                int((a & ~b)[own].sum()),
                int((b & ~a)[own].sum()),
            )
        )
    return found
