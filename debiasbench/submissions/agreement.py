"""Whether records that maintainers ran again agree with those of a submission.

Only files are read: no code of the submission may be in the process that decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from debiasbench.common.errors import DebiasbenchError, OptionError
from debiasbench.records.reading import stream
from debiasbench.records.store import read_predictions
from debiasbench.records.trust import content_of
from debiasbench.records.verify import Together
from debiasbench.submissions.against import differing, rows
from debiasbench.submissions.near import accuracy, deviation, tolerance
from debiasbench.submissions.reproduce import sample

if TYPE_CHECKING:
    from pathlib import Path

    from debiasbench.records.record import Record
    from debiasbench.submissions.check import Result


@dataclass(frozen=True)
class Outcome:
    """A record that was run again.

    `ok`: whether the result is the same, as far as it can be. `message`: what was compared.
    """

    record: Record
    ok: bool
    message: str


def agreements(result: Result, again: Path, nonce: str, number: int) -> list[Outcome]:
    """Compare the sample of a checked submission with the records in `again`.

    Raises `OptionError` for a folder in the submission, `RecordError` for one that does not exist.
    """
    submission = result.submission
    if again.resolve().is_relative_to(submission.folder):
        raise OptionError(f"{again} must not be in the folder of the submission")
    new = {record.id: (path, record) for path, record in stream([again], [])}
    files = {record.id: path for path, record in submission.records}
    every = [record for _, record in submission.records]
    together = Together(result.references)
    outcomes = []
    for row, chosen in zip(rows(every).values(), sample(every, nonce, number), strict=True):
        for record in chosen:
            spread = min(result.spreads.get(record.id, 0.0), deviation(row))
            outcomes.append(_outcome(files[record.id], record, new, spread, together))
    return outcomes


def _outcome(
    path: Path,
    record: Record,
    new: dict[str, tuple[Path, Record]],
    spread: float,
    together: Together,
) -> Outcome:
    if record.id not in new:
        return Outcome(
            record,
            False,
            "there is no record of a new run of it. Did `submit sample` have the same --nonce and "
            "--sample?",
        )
    other_path, again = new[record.id]
    if content_of(other_path) == content_of(path):
        why: str | None = "the record is the submitted file, not another run"
    elif messages := together.examine(other_path, again).messages:
        why = f"the record of the new run: {messages[0]}"
    else:
        why = obstacle(record, again)
    if why is not None:
        return Outcome(record, False, why)
    if record.status == "failed":
        return Outcome(record, True, "it failed again")
    try:
        equal = _equal(path, record, other_path, again)
    except DebiasbenchError as error:
        return Outcome(record, False, str(error))
    return compared(record, again, spread, equal=equal)


def obstacle(record: Record, again: Record) -> str | None:
    """Return why a record cannot be that of the code that ran again, None if it can."""
    if again.status != record.status:
        return f"the status is {again.status}, but {record.status} in the record"
    if again.task != record.task:
        return "the data are not those of the record"
    if again.supervision != record.supervision:
        return f"the method declares {again.supervision}, but the record says {record.supervision}"
    if record.provenance.code is None:
        return "the record does not say with which code it was made"
    if different := differing(record.provenance.plugin_code, again.provenance.plugin_code):
        return (
            f"the code of the {' and the '.join(different)} is not that of the record "
            f"({record.provenance.plugins.get(different[0])})"
        )
    return None


def compared(record: Record, again: Record, spread: float, *, equal: bool) -> Outcome:
    """Compare a record with one of the same spec; `equal`: whether all predictions are equal.

    Equal predictions are required where the same code ran on the same hardware with the same
    versions, on a device that computes the same twice; otherwise accuracies must be near. `spread`:
    the standard deviation over seeds that is believed, see `Published.spread`.
    """
    if equal:
        return Outcome(record, True, "all predictions are equal")
    off, most = accuracy(again) - accuracy(record), tolerance(again, spread)
    numbers = (
        f"{record.task.metric} is {accuracy(again):.4f}, {accuracy(record):.4f} in the record; "
        f"test samples and seeds explain a difference of at most {most:.4f}"
    )
    if why := _why_unequal(record, again):
        return Outcome(record, abs(off) <= most, f"{numbers}; not equal because {why}")
    return Outcome(
        record,
        False,
        f"predictions differ, although code, versions and hardware are the same; {numbers}",
    )


def _why_unequal(record: Record, again: Record) -> str:
    """Return why two runs may differ in the last bits, "" if they must be equal."""
    one, other = record.provenance, again.provenance
    if not other.deterministic:  # what a stranger's record states here does not count
        return "the device is not deterministic"
    if one.hardware != other.hardware:
        return f"the hardware is {other.hardware} instead of {one.hardware}"
    if one.versions != other.versions:
        return f"versions differ: {', '.join(differing(one.versions, other.versions))}"
    if one.code != other.code:
        return "the code of debiasbench is not that of the record"
    if one.arithmetic != other.arithmetic:
        return "the arithmetic differs"
    return ""


def _equal(path: Path, record: Record, other_path: Path, other: Record) -> bool:
    """Say whether all predictions of two records are equal; raises `RecordError`."""
    if record.outcomes.keys() != other.outcomes.keys():
        return False
    for rule in record.outcomes:
        for split in ("val", "test"):
            one = read_predictions(path, record, rule, split)
            two = read_predictions(other_path, other, rule, split)
            if not all(np.array_equal(one[name], two[name]) for name in one):
                return False
    return True
