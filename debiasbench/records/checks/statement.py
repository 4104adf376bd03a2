"""What a record says about itself: id, spec, status (E01)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debiasbench.records.record import Result


def spec(record: Result) -> Iterator[str]:
    """Check that the id is that of the spec, and the precision that of the provenance."""
    if record.id != record.spec.id:
        yield f"the id is {record.id}, but the spec hashes to {record.spec.id}"
    stated = record.spec.training.get("precision", "fp32")
    used = record.provenance.arithmetic.get("precision", stated)
    if stated != used:
        yield f"the spec says precision {stated}, but the provenance says {used}"


def status(record: Result) -> Iterator[str]:
    """Check that a record has what runs with its status have, and nothing else."""
    ok = record.status == "ok"
    if ok == (record.failure is not None):
        yield f"the status is {record.status}, but there is {'a' if ok else 'no'} failure"
    if ok != bool(record.outcomes):
        yield f"the status is {record.status}, but there are {len(record.outcomes)} outcomes"
    if ok and record.cost is None:
        yield "the status is ok, but there is no cost"
    if not ok and record.predictions is not None:
        yield "the status is failed, but there are predictions"
    if not ok and getattr(record, "inference", None) is not None:
        yield "the status is failed, but there is an inference"
