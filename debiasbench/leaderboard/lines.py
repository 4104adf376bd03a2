"""What a comparison over data sets is made of: columns, lines with their entries, and pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from debiasbench.leaderboard.row import Difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.matching import Match
    from debiasbench.leaderboard.orders import Friedman
    from debiasbench.leaderboard.row import Level, Row

DONE = "done"  # the states of an entry
FAILED = "failed"
ONE_SEED = "one seed"
STALE = "out of date"
NOT_RUN = "not run"
CANNOT_RUN = "cannot run"

NOTHING = Difference()  # where two rows cannot be compared
BETTER, WORSE, NEITHER = "better", "worse", "neither"  # the verdicts on two lines
TURNED = {BETTER: WORSE, WORSE: BETTER, NEITHER: NEITHER, None: None}  # with the lines exchanged


@dataclass(frozen=True)
class Column:
    """A data set with a network: its board, and what tells it from the other columns."""

    label: str
    board: Board
    name: str  # of the data set, without options


@dataclass(frozen=True)
class Entry:
    """What a line has on a data set.

    `row`: None if there is no record, and if it cannot run. `difference`: to the baseline, NaN
    without one. `place`: rank among the complete lines of the section, equal ones share the mean of
    theirs; `rank`: the lowest and highest that tests leave open.
    """

    state: str
    row: Row | None = None
    difference: Difference = NOTHING
    place: float = math.nan
    rank: tuple[int, int] | None = None


@dataclass(frozen=True)
class MeanRank:
    """The mean over data sets of ranks, and of the lowest and highest that tests leave open."""

    mean: float
    low: float
    high: float
    lines: int  # that were ranked
    columns: tuple[int, ...]  # numbers of the columns


@dataclass(frozen=True)
class Line:
    """A method with one setting on all data sets.

    `verdicts`: on how many data sets it is significantly better, significantly worse, and neither,
    summed over all other lines of its section. `of`: the numbers of the data sets on which any line
    of its section was run; `complete`: whether it has a result on all of them.
    """

    match: Match
    entries: list[Entry]
    of: Sequence[int] = ()
    complete: bool = False
    mean_rank: MeanRank | None = None
    verdicts: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Method and setting."""
        return self.match.name

    @property
    def level(self) -> Level:
        """The section."""
        return self.match.level


@dataclass(frozen=True)
class Pair:
    """Two lines of a section, by their numbers.

    `differences`: `one` minus `other` on each data set, NaN where they cannot be compared.
    `verdicts`: on each data set what `one` is, after Holm's correction over all pairs of the
    section there; None where they are not compared.
    """

    one: int
    other: int
    differences: list[Difference]
    verdicts: list[str | None]

    @property
    def turned(self) -> Pair:
        """The same comparison with the two lines exchanged."""
        return Pair(
            self.other,
            self.one,
            [Difference(-d.mean, -d.high, -d.low, d.p) for d in self.differences],
            [TURNED[verdict] for verdict in self.verdicts],
        )

    def counts(self) -> dict[str, int]:
        """Return on how many data sets `one` is better, worse and neither."""
        return {name: self.verdicts.count(name) for name in (BETTER, WORSE, NEITHER)}


@dataclass(frozen=True)
class Across:
    """A comparison over data sets. Lines: by section, complete ones first, then by mean rank."""

    columns: list[Column]
    baseline: str | None
    lines: list[Line]
    pairs: list[Pair]
    friedman: dict[Level, Friedman]  # of sections with twelve data sets or more
    notes: list[str]
