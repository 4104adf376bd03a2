"""A test split with the same number of samples of each group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError
from debiasbench.common.wording import counted
from debiasbench.files.importing.vetting import lot
from debiasbench.files.importing.wording import few, joined

if TYPE_CHECKING:
    from pathlib import Path

    from debiasbench.files.importing.source import Row, Source


def balance(rows: list[Row], source: Source) -> tuple[list[Row], str]:
    """Leave out test samples of all groups but the smallest; return the rows, and a note.

    The other splits are not changed. Which samples are kept depends on the rows and the seed, not
    on the order of rows. Raises `DataError` if a group has no test sample.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Row]] = {}
    for row in rows:
        members = groups.setdefault((row.label, row.bias), [])
        if row.split == "test":
            members.append(row)
    if absent := [
        f"{label} with {joined(bias, source.bias)}"
        for (label, bias), members in sorted(groups.items())
        if not members
    ]:
        raise DataError(
            f"The test split cannot be balanced: it has no {source.noun} of "
            f"{few(absent, 5, '; ')}. Add some, or leave out --balance-test"
        )
    size = min((len(members) for members in groups.values()), default=0)
    kept: set[Path] = set()
    for members in groups.values():
        drawn = sorted(members, key=lambda row: lot(row, source.seed))[:size]
        kept.update(row.path for row in drawn)
    balanced = [row for row in rows if row.split != "test" or row.path in kept]
    note = (
        f"The test split has {counted(size, source.noun)} of each group. Left out of larger "
        f"groups: {counted(len(rows) - len(balanced), source.noun)}. --seed draws others."
    )
    return balanced, note
