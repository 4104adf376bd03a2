"""What maintainers state of rows: how far they trust them, and which are withdrawn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from debiasbench.common.wording import counted, listed
from debiasbench.records.trust import LEVELS, TRUST, trust_of, withdrawn_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from debiasbench.leaderboard.row import Row
    from debiasbench.records.trust import Trust, Withdrawal


@dataclass(frozen=True)
class Standing:
    """Id of a record -> how far it was checked, and why it was withdrawn.

    `lost`: ids of records that have no level any more, because their files have changed.
    """

    trust: Mapping[str, Trust] = field(default_factory=dict)
    withdrawn: Mapping[str, Withdrawal] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()

    @classmethod
    def beside(cls, places: Iterable[Path], paths: Mapping[str, Path]) -> Standing:
        """Read `trust.json` and `withdrawn.toml` beside or above files and folders of records.

        `paths`: id -> the file of the record, which must be the one that was checked. Raises
        `RecordError`.
        """
        places = list(places)
        trust, lost = trust_of(places, paths)
        return cls(trust, withdrawn_of(places), lost)

    def stated(self, rows: Sequence[Row]) -> list[Row]:
        """Return rows with their trust; rows with a withdrawn record are stale."""
        return [replace(row, trust=self._trust(row), stale=self._stale(row)) for row in rows]

    def notes(self, rows: Sequence[Row]) -> list[str]:
        """Return a note for a table whose records have lost their levels."""
        names = [row.name for row in rows if self.lost.intersection(row.records)]
        if not names:
            return []
        number = sum(len(self.lost.intersection(row.records)) for row in rows)
        return [
            f"{counted(number, 'record')} of {listed(names)} changed after {TRUST} was written, so "
            "the level there does not count."
        ]

    def _trust(self, row: Row) -> str:
        """Return the lowest level of a row's records, nothing if one has none."""
        levels = [self.trust[name].level for name in row.records if name in self.trust]
        return min(levels, key=LEVELS.index) if len(levels) == len(row.records) > 0 else ""

    def _stale(self, row: Row) -> str:
        gone = [self.withdrawn[name] for name in row.records if name in self.withdrawn]
        if not gone:
            return row.stale
        how = (
            "withdrawn"
            if len(gone) == len(row.records)
            else f"{counted(len(gone), 'record')} withdrawn"
        )
        return f"{how} on {gone[0].date}: {gone[0].reason}"
