"""Running a sample of a submission's records again, with the installed code of its method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from debiasbench.common.errors import DebiasbenchError, Interrupted
from debiasbench.common.randomness import derive
from debiasbench.records.store import read_predictions
from debiasbench.runs.provenance import plugin_code
from debiasbench.specs.revisions import changed, renewed
from debiasbench.submissions.against import declared, rows
from debiasbench.submissions.near import accuracy, tolerance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from debiasbench.records.record import Record
    from debiasbench.runs.session import Session
    from debiasbench.specs.plugins import Plugins


@dataclass(frozen=True)
class Outcome:
    """A record that was run again.

    `ok`: whether the result is the same, as far as it can be. `message`: what was compared.
    """

    record: Record
    ok: bool
    message: str


def sample(records: Iterable[Record], nonce: str, number: int = 1) -> list[list[Record]]:
    """Choose `number` records of each row; return them by row.

    `nonce`: such as the commit of the merge, which nobody knows before the records are submitted.
    """
    chosen = []
    for row in rows(records).values():
        order = sorted(row, key=lambda record: derive(0, nonce, record.id))
        chosen.append(order[:number])
    return chosen


def reproduced(
    session: Session, paths: Sequence[tuple[Path, Record]], nonce: str, number: int = 1
) -> Iterable[Outcome]:
    """Run a sample of the records again; yield what each gave."""
    by_id = {record.id: path for path, record in paths}
    every = [record for _, record in paths]
    for chosen in sample(every, nonce, number):
        row = next(r for r in rows(every).values() if chosen[0] in r)
        for record in chosen:
            yield _again(session, by_id[record.id], record, row)


def _again(session: Session, path: Path, record: Record, row: Sequence[Record]) -> Outcome:
    if why := obstacle(record, session.plugins):
        return Outcome(record, False, why)
    try:
        run = session.run(record.spec)
    except Interrupted:
        raise
    except DebiasbenchError as error:
        return Outcome(record, False, f"it does not run: {error}")
    if run.record.status != record.status:
        return Outcome(
            record, False, f"the status is {run.record.status}, but {record.status} in the record"
        )
    if record.status == "failed":
        return Outcome(record, True, "it failed again")
    try:
        equal = _equal(path, record, run.path, run.record)
    except DebiasbenchError as error:
        return Outcome(record, False, str(error))
    return compared(record, run.record, row, equal=equal)


def obstacle(record: Record, plugins: Plugins) -> str | None:
    """Return why the installed code is not that of a record, None if it is as far as is known."""
    wrong = list(declared(record, plugins))
    if wrong:
        return wrong[0].message
    if changes := changed(record.spec, renewed(plugins, record.spec)):
        return f"the installed code has other revisions ({'; '.join(changes)})"
    try:
        now = plugin_code(plugins, record.spec)
    except DebiasbenchError as error:
        return f"{error}"
    before = record.provenance.plugin_code
    different = [kind for kind in sorted({*now, *before}) if now.get(kind) != before.get(kind)]
    if different and record.provenance.code is not None:
        return (
            f"the installed code of the {' and the '.join(different)} is not that of the record "
            f"({record.provenance.plugins.get(different[0])})"
        )
    return None


def compared(record: Record, again: Record, row: Sequence[Record], *, equal: bool) -> Outcome:
    """Compare a record with one of the same spec; `equal`: whether all predictions are equal.

    Equal predictions are required where both were computed deterministically by the same code, on
    the same hardware, with the same versions; otherwise the accuracies must be near.
    """
    if equal:
        return Outcome(record, True, "all predictions are equal")
    off, most = accuracy(again) - accuracy(record), tolerance(record, row)
    numbers = (
        f"{record.task.metric} is {accuracy(again):.4f}, {accuracy(record):.4f} in the record; "
        f"{most:.4f} are the most that test samples and seeds explain"
    )
    if why := _why_unequal(record, again):
        return Outcome(record, abs(off) <= most, f"{numbers}; not equal because {why}")
    return Outcome(
        record,
        False,
        f"predictions differ, although code, versions and hardware are the same; {numbers}",
    )


def _why_unequal(record: Record, again: Record) -> str:
    """Return why two runs may differ in the last bits, "" if they must not."""
    one, other = record.provenance, again.provenance
    if not (one.deterministic and other.deterministic):
        return "the device is not deterministic"
    if one.hardware != other.hardware:
        return f"the hardware is {other.hardware} instead of {one.hardware}"
    if one.versions != other.versions:
        names = [
            n
            for n in sorted({*one.versions, *other.versions})
            if one.versions.get(n) != other.versions.get(n)
        ]
        return f"versions differ: {', '.join(names)}"
    if one.code is None or one.code != other.code:
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
