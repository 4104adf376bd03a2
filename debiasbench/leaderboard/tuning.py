"""How the settings of rows were found: the defaults, a search with equal budgets, or by hand.

The three never share a ranking. A row is `tuned (n=16)` if a search of 16 trials chose its settings
by the board's own selection rule, on a seed that the row does not have. Any other row whose
settings are not the defaults was set by hand. Winners of searches whose options were partly given,
or which another sampler drew, count as set by hand too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from debiasbench.common.canonical import canonical
from debiasbench.leaderboard.frame import plain
from debiasbench.leaderboard.row import BY_HAND, DEFAULT, Row, common, with_settings

if TYPE_CHECKING:
    from debiasbench.records.checks.search import ExaminedSearch
    from debiasbench.records.record import Record

NAMES = {DEFAULT: "default", BY_HAND: "by hand"}
MEANING = (
    "Default: options as methods declare them, and training as the data set recommends or as all "
    "rows share it. Tuned (n): the best of n trials of a search on validation, reported on other "
    "seeds. By hand: other settings. Ranks and marks are among equals only."
)


@dataclass(frozen=True)
class Tuned:
    """Which records report the winner of a search: selection rule -> id -> the search."""

    of: Mapping[str, Mapping[str, ExaminedSearch]] = field(default_factory=dict)

    @classmethod
    def among(cls, records: Sequence[Record], found: Sequence[ExaminedSearch]) -> Tuned:
        """Find the records that report winners; searches with findings have none."""
        from debiasbench.records.checks.search import like  # most tables are without searches

        winners: dict[tuple[str, str], list[ExaminedSearch]] = {}
        for one in found:
            if is_fair(one):
                key = one.search.dataset.name, one.search.method
                winners.setdefault(key, []).append(one)
        of: dict[str, dict[str, ExaminedSearch]] = {}
        for record in records if winners else ():
            for one in winners.get((record.spec.dataset.name, record.spec.method.name), ()):
                same_data = record.task.fingerprint == one.search.fingerprint
                if same_data and like(record.spec, one.winner):
                    of.setdefault(one.search.rule, {}).setdefault(record.id, one)
        return cls(of)


def is_fair(one: ExaminedSearch) -> bool:
    """Say whether a search gives all methods the same: see the first lines of this file."""
    from debiasbench.specs.search import HYPERCUBE

    if one.findings or one.search.sampler != HYPERCUBE:
        return False
    given = one.trials[0].provenance.chosen or ()
    return not any(name.startswith("method.") for name in given)


def labelled(
    rows: Sequence[Row], records: Sequence[Record], rule: str, tuned: Tuned | None
) -> list[Row]:
    """Return rows with their names, and how their settings were found.

    A row whose search found the defaults to be the best is returned twice, once as a default and
    once as tuned. `tuned`: None leaves all rows together.
    """
    if tuned is None:
        return with_settings(list(rows))
    by_id = {record.id: record for record in records}
    of = tuned.of.get(rule, {})
    searches = [_search(row, of) for row in rows]
    chosen = [by_id[row.records[0]].provenance.chosen for row in rows]
    others = [row for row, one in zip(rows, searches, strict=True) if one is None] or rows
    shared = common([row.training for row in others])
    by_hand = [
        _is_by_hand(row, names, shared, rows) for row, names in zip(rows, chosen, strict=True)
    ]
    plainly = [
        replace(row, tuning=BY_HAND if hand else DEFAULT)
        for row, hand, one in zip(rows, by_hand, searches, strict=True)
        if one is None or not hand
    ]
    if len({row.method for row in rows}) == 1 and any(by_hand) and not any(searches):
        plainly = [replace(row, tuning=BY_HAND) for row in plainly]  # a grid of one method
    won = [_won(row, one) for row, one in zip(rows, searches, strict=True) if one is not None]
    made = [*(with_settings(plainly) if plainly else []), *_named(won)]
    if all(row.tuning == DEFAULT for row in made):
        return made
    return [replace(row, tuning_name=tuning_name(row.tuning)) for row in made]


def _search(row: Row, of: Mapping[str, ExaminedSearch]) -> ExaminedSearch | None:
    """Return the search that found a row; None if a record of it has another origin."""
    found = [of.get(name) for name in row.records]
    first = found[0]
    if first is None or any(one is not first for one in found):
        return None
    seeds = {*row.values, *row.failed, *row.missing}
    return None if first.search.seed in seeds else first


def _is_by_hand(
    row: Row, chosen: Sequence[str] | None, shared: Mapping[str, Any], rows: Sequence[Row]
) -> bool:
    """Say whether a row has other settings than the defaults.

    Training settings that all rows share belong to the comparison. Older records do not say what
    was chosen; then several settings of one method were set by hand.
    """
    if chosen is None:
        settings = {canonical(other.options) for other in rows if other.method == row.method}
        return len(settings) > 1
    return any(
        name.startswith("method.") or name.removeprefix("train.") not in shared for name in chosen
    )


def _won(row: Row, one: ExaminedSearch) -> Row:
    search = one.search
    searched = {
        name: row.training.get(name.removeprefix("train."))
        for name in search.space
        if name.startswith("train.")
    }
    costs = {"search_seconds": search.seconds, "search_flops": search.flops}
    note = (
        f"trial {search.won} of {len(search.trials)} by {search.metric} accuracy on validation "
        f"under {search.rule}, seed {search.seed}"
    )
    return replace(
        row,
        tuning=len(search.trials),
        searched=searched,
        costs={**row.costs, **costs},
        found_by=note,
    )


def _named(rows: Sequence[Row]) -> list[Row]:
    """Name tuned rows by the budget, and where that does not tell them apart, by what differs."""
    made = []
    for row in rows:
        like_it = [other for other in rows if _key(other) == _key(row)]
        same = common([other.training for other in like_it])
        own = {f"train.{k}": v for k, v in row.training.items() if k not in same}
        own |= {"record": row.records[0][:8]} if len(like_it) > 1 else {}
        parts = [f"{name}={plain(value)}" for name, value in sorted(own.items())]
        made.append(replace(row, setting=", ".join([f"tuned, n={row.tuning}", *parts])))
    return made


def _key(row: Row) -> tuple[object, ...]:
    return row.method, row.tuning


def tuning_name(tuning: int) -> str:
    """Write how the settings of a row were found: "default", "tuned (n=16)" or "by hand"."""
    return NAMES.get(tuning) or f"tuned (n={tuning})"
