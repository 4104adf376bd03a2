"""The published records that a submission is compared with (E03, E07, W01, W02, W03)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from debiasbench.common.wording import shown
from debiasbench.records.checks.finding import Finding
from debiasbench.records.checks.labels import read
from debiasbench.records.reading import stream
from debiasbench.records.verify import Together
from debiasbench.submissions.against import canonical_of, row_of, rows
from debiasbench.submissions.near import accuracy, deviation, tolerance

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from debiasbench.records.record import Record

FASTER = 3.0  # times the images per second of any published record on the same hardware
OFF = 0.01  # relative difference of two costs that must be equal


@dataclass
class Published:
    """Published records without errors, and what later records are compared with."""

    records: dict[str, Record]  # by id; none is added after `read`
    together: Together
    references: Path | None

    @classmethod
    def read(cls, places: Iterable[Path], references: Path | None = None) -> Published:
        """Read published records; those with errors, and files that are no records, are left out.

        Raises `RecordError` for a place that does not exist.
        """
        published = cls({}, Together(references, strict=True), references)
        for path, record in stream(places, []):
            if not published.together.examine(path, record).messages:
                published.records.setdefault(record.id, record)
        return published

    @cached_property
    def rows(self) -> dict[str, list[Record]]:
        """The published records by `row_of`."""
        return rows(self.records.values())

    def task(self, record: Record) -> Iterator[Finding]:
        """Check the facts about its data in a record against published records (E03)."""
        others = [r for r in self.records.values() if r.spec.dataset == record.spec.dataset]
        known = {other.task.fingerprint for other in others}
        if known and record.task.fingerprint not in known:
            yield Finding(
                "E03",
                f"its data {shown(record.task.fingerprint)} are not those of {others[0].spec.stem} "
                "with the same options",
            )
        for other in self.records.values():
            if other.task.fingerprint == record.task.fingerprint:
                if other.task != record.task:
                    yield Finding(
                        "E03",
                        f"its facts about the data are not those in {other.spec.stem} about the "
                        "same data",
                    )
                return

    def has_reference(self, record: Record) -> bool:
        """Say whether the labels of a record's data are known from elsewhere."""
        folder = self.references
        return folder is not None and read(folder, record.task.fingerprint) is not None

    def spread(self, record: Record, but: Collection[str]) -> float:
        """Return the largest standard deviation over seeds of any published row on the same data.

        `but`: ids of the submission, which may be published already. They do not count, since a
        row of forged records may vary more.
        """
        task = record.task
        same = (
            [
                other
                for other in row
                if other.id not in but
                and other.task.fingerprint == task.fingerprint
                and other.task.metric == task.metric
            ]
            for row in self.rows.values()
        )
        return max(map(deviation, same), default=0.0)

    def cost(self, record: Record) -> Iterator[Finding]:
        """Compare the cost of a record with those of the same network on the same data (W01)."""
        cost = record.cost
        if cost is None:
            return
        peers = [
            other
            for other in self.records.values()
            if other.cost is not None
            and other.task.fingerprint == record.task.fingerprint
            and canonical_of(other.spec.model) == canonical_of(record.spec.model)
        ]
        rates = [
            other.cost.images_per_second
            for other in peers
            if other.cost is not None and other.provenance.hardware == record.provenance.hardware
        ]
        if rates and cost.images_per_second > FASTER * max(rates):
            yield Finding(
                "W01",
                f"{cost.images_per_second:,.0f} images per second are more than {FASTER:g} times "
                f"those of any published record on {record.provenance.hardware} "
                f"({max(rates):,.0f})",
            )
        for other in peers:
            assert other.cost is not None
            same = other.cost.parameters == cost.parameters and other.cost.density == cost.density
            if (
                same
                and cost.density == 1
                and _differ(other.cost.inference_flops, cost.inference_flops)
            ):
                yield Finding(
                    "W01",
                    f"a prediction takes {cost.inference_flops:.6g} FLOPs, but "
                    f"{other.cost.inference_flops:.6g} in {other.spec.stem} with the same number "
                    "of parameters",
                )
                return

    def result(self, record: Record) -> Iterator[Finding]:
        """Compare the accuracy with that of the published record of the same spec (W02)."""
        known = self.records.get(record.id)
        if known is None:
            return
        if (known.status, record.status) != ("ok", "ok"):
            if known.status != record.status:
                yield Finding(
                    "W02", f"its status is {record.status}, but {known.status} in the published one"
                )
            return
        most = tolerance(known, deviation(self.rows[row_of(known.spec)]))
        off = accuracy(record) - accuracy(known)
        if not abs(off) <= most:
            yield Finding(
                "W02",
                f"{record.task.metric} is {accuracy(record):.4f}, but {accuracy(known):.4f} in the "
                f"published record of the same spec; test samples and seeds explain a difference "
                f"of at most {most:.4f}",
            )


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > OFF * max(abs(one), abs(other))
