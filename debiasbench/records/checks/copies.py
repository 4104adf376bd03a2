"""Predictions and losses that several records share (E07, W04, W03)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.records.beside import prediction_key
from debiasbench.records.checks.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from debiasbench.records.record import Record

    Stored = Mapping[str, NDArray[Any]]


class Copies:
    """Remembers the predictions and the losses of records, and names the first that has the same.

    Compared are the predictions under `last` and under the rule of the data set. Predictions that
    are the same for all samples of each group say nothing, since all seeds may end so: a network
    that is always right, or that follows the bias alone. Records of one seed and different methods
    may agree because the methods do the same, which is no error. Seeds may agree because the
    method does not depend on them: an error if `strict`, as in a submission.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._code = "E07" if strict else "W04"
        # by mark: id, seed and file name of the first record
        self._seen: dict[tuple[str, bytes], tuple[str, int, str]] = {}

    def findings(self, record: Record, stored: Stored | None) -> list[Finding]:
        """Compare a record with all before it, and remember it."""
        marks = [("loss curve is that", mark) for mark in _curves(record)]
        if stored is not None:
            marks += [("predictions are those", mark) for mark in _predictions(record, stored)]
        found: list[Finding] = []
        for what, mark in marks:
            own = record.id, record.spec.seed, record.spec.stem
            first, seed, stem = self._seen.setdefault((what, mark), own)
            if first == record.id:
                continue
            if seed != record.spec.seed:
                found.append(Finding(self._code, f"its {what} of {stem}, another seed"))
            elif what.startswith("predictions"):
                found.append(Finding("W03", f"its {what} of {stem}"))
        return list(dict.fromkeys(found))


def _predictions(record: Record, stored: Stored) -> Iterator[bytes]:
    """Yield digests of predictions of the test split that tell networks apart."""
    group = stored["test.group"]
    order = np.argsort(group, kind="stable")
    same_group = np.diff(group[order].astype(np.int64)) == 0
    rules = [rule for rule in ("last", record.task.select) if rule in record.outcomes]
    for key in {f"test.{prediction_key(record.outcomes[rule].epoch)}" for rule in rules}:
        values = stored[key].astype("<u4")
        if (np.diff(values[order].astype(np.int64))[same_group] != 0).any():
            yield hashlib.sha256(record.task.fingerprint.encode() + values.tobytes()).digest()


def _curves(record: Record) -> Iterator[bytes]:
    """Yield a digest of the losses of all stages, unless they are missing or constant."""
    losses = [curve.values.get("loss", []) for curve in record.curves]
    if any(len(set(loss)) > 1 for loss in losses):
        yield hashlib.sha256(f"{record.task.fingerprint} {losses}".encode()).digest()
