"""Published values beside what the same runs give here, with a verdict on each difference.

They are never rows of a table of methods: other code, other splits and other rules of selection
made them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from debiasbench.common.canonical import canonical
from debiasbench.common.wording import counted
from debiasbench.leaderboard.board import boards
from debiasbench.leaderboard.groups import NORMAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from debiasbench.leaderboard.gather import Gathered
    from debiasbench.leaderboard.published import Published, Value
    from debiasbench.leaderboard.row import Row
    from debiasbench.specs.spec import Spec

CLOSE = 2.0  # joint deviations; a larger difference is not explained by chance

Verdict = Literal["within 2", "above", "below", "protocol differs", "one seed", "failed", "not run"]


@dataclass(frozen=True)
class Line:
    """A published value and our runs of the same cell.

    `runs`: number of runs of the suite that belong to it. `row`: their summary, None if none was
    run. `failed`: number of runs that failed.
    """

    value: Value
    runs: int
    row: Row | None = None
    failed: int = 0

    @property
    def done(self) -> int:
        """Number of runs with a result."""
        return 0 if self.row is None else len(self.row.values)

    @property
    def difference(self) -> float:
        """Our accuracy minus the published one; NaN without ours."""
        return math.nan if self.row is None else self.row.mean - self.value.accuracy

    @property
    def assumed(self) -> bool:
        """Whether the published value has no deviation, and ours stands for it."""
        return math.isnan(self.value.deviation)

    @property
    def deviations(self) -> float:
        """The difference, in standard errors of a difference; NaN for fewer than two seeds.

        Infinite if neither seeds nor samples vary, and the accuracies differ.
        The standard error has our seeds and test samples, and the seeds behind the published value.
        """
        if self.row is None or self.done < 2:
            return math.nan
        ours = self.row.deviation
        theirs = ours if self.assumed else self.value.deviation
        samples = self.row.interval.samples
        variance = ours**2 / self.done + theirs**2 / (self.value.source.seeds or self.done)
        variance += 0.0 if math.isnan(samples) else (samples / NORMAL) ** 2
        if not variance:
            return math.copysign(math.inf, self.difference) if self.difference else 0.0
        return self.difference / math.sqrt(variance)

    @property
    def verdict(self) -> Verdict:
        """Whether chance explains the difference."""
        if self.done == 0:
            return "failed" if self.failed else "not run"
        if self.value.source.differs:
            return "protocol differs"
        if self.done < 2:
            return "one seed"
        if abs(self.deviations) <= CLOSE:
            return "within 2"
        return "above" if self.difference > 0 else "below"


@dataclass(frozen=True)
class Reproduction:
    """The published values of a suite beside ours, in the order of their file."""

    published: Published
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def reproduction(
    published: Published, specs: Iterable[Spec], gathered: Gathered | None
) -> Reproduction:
    """Compare published values with the records of a suite.

    `specs`: all runs of the suite. `gathered`: records, of which those of other runs are left out;
    None if there is none. Records that other revisions of the code, or another precision, made of
    these runs count too; a note says so. Of several kinds, the one with most seeds is used.
    """
    of = {_content(spec): spec for spec in specs}
    records = [] if gathered is None else [r for r in gathered.records if _content(r.spec) in of]
    withdrawn = set() if gathered is None else gathered.standing.withdrawn.keys()
    judged = [record for record in records if record.id not in withdrawn]
    left_out, records = len(records) - len(judged), judged
    rows: dict[str, Row] = {}  # id of a record -> its row
    made = []
    if gathered is not None and records:
        made = boards(
            records, metric=published.metric, select=published.select, **gathered.evidence
        )
        rows = {name: row for board in made for row in board.rows for name in row.records}
    lines = []
    for value in published.values:
        own = [record for record in records if value.describes(record.spec)]
        candidates = list({id(rows[r.id]): rows[r.id] for r in own if r.id in rows}.values())
        lines.append(
            Line(
                value,
                runs=sum(value.describes(spec) for spec in of.values()),
                row=max(candidates, key=_worth, default=None),
                failed=sum(record.status == "failed" for record in own),
            )
        )
    current = {spec.id for spec in of.values() if not spec.unresolved}
    other = sum(record.id not in current for record in records)
    notes = []
    if left_out:
        were = "is" if left_out == 1 else "are"
        notes.append(f"{counted(left_out, 'record')} {were} withdrawn and not judged.")
    if other:
        notes.append(
            f"Of the records, {other} were made with other revisions of the code or in another "
            "precision than runs would be here."
        )
    return Reproduction(published, tuple(lines), tuple(notes))


def _worth(row: Row) -> tuple[int, Sequence[int]]:
    return len(row.values), sorted(row.revisions.values())


def _content(spec: Spec) -> str:
    """Return everything that decides a run but the precision and the revisions of the code."""
    plain = asdict(spec)
    del plain["revisions"]
    plain["training"] = {k: v for k, v in spec.training.items() if k != "precision"}
    return canonical(plain)
