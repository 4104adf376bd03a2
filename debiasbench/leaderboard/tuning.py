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
    """Which records report winners: selection rule -> id -> the searches that they won."""

    of: Mapping[str, Mapping[str, Sequence[ExaminedSearch]]] = field(default_factory=dict)

    @classmethod
    def among(cls, records: Sequence[Record], found: Sequence[ExaminedSearch]) -> Tuned:
        """Find the records that report winners; searches with findings have none."""
        from debiasbench.records.checks.search import like  # most tables are without searches

        winners: dict[tuple[str, str], list[ExaminedSearch]] = {}
        for one in found:
            if is_fair(one):
                key = one.search.dataset.name, one.search.method
                winners.setdefault(key, []).append(one)
        of: dict[str, dict[str, list[ExaminedSearch]]] = {}
        for record in records if winners else ():
            for one in winners.get((record.spec.dataset.name, record.spec.method.name), ()):
                same_data = record.task.fingerprint == one.search.fingerprint
                if same_data and like(record.spec, one.winner):
                    of.setdefault(one.search.rule, {}).setdefault(record.id, []).append(one)
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

    A row whose search found the defaults to be the best, its first trial, is returned twice, once
    as a default and once as tuned, and so is one that won searches with different numbers of
    trials. `tuned`: None leaves all rows together.
    """
    if tuned is None:
        return with_settings(list(rows))
    by_id = {record.id: record for record in records}
    of = tuned.of.get(rule, {})
    searches = [_searches(row, of) for row in rows]
    chosen = [by_id[row.records[0]].provenance.chosen for row in rows]
    others = [row for row, won in zip(rows, searches, strict=True) if not won] or rows
    shared = common([row.training for row in others])
    several = _with_several_settings(rows) if None in chosen else set()
    by_hand = [
        row.method in several if names is None else _is_chosen(names, shared)
        for row, names in zip(rows, chosen, strict=True)
    ]
    plainly = [
        replace(row, tuning=BY_HAND if hand else DEFAULT)
        for row, hand, won in zip(rows, by_hand, searches, strict=True)
        if not won or (not hand and any(one.search.won == 0 for one in won.values()))
    ]
    if len({row.method for row in rows}) == 1 and any(by_hand) and not any(searches):
        plainly = [replace(row, tuning=BY_HAND) for row in plainly]  # a grid of one method
    winners = [
        _won(row, one) for row, won in zip(rows, searches, strict=True) for one in won.values()
    ]
    made = [*(with_settings(plainly) if plainly else []), *_named(winners)]
    if all(row.tuning == DEFAULT for row in made):
        return made
    return [replace(row, tuning_name=tuning_name(row.tuning)) for row in made]


def _searches(row: Row, of: Mapping[str, Sequence[ExaminedSearch]]) -> dict[int, ExaminedSearch]:
    """Return the searches that a row won by their numbers of trials.

    None if a record of it has another origin, or the seed of the trials.
    """
    seeds = {*row.values, *row.failed, *row.missing}
    first, *others = [of.get(name, ()) for name in row.records]
    return {
        len(one.search.trials): one
        for one in reversed(first)
        if one.search.seed not in seeds and all(one in found for found in others)
    }


def _is_chosen(names: Sequence[str], shared: Mapping[str, Any]) -> bool:
    """Say whether what was chosen is more than training settings that all rows share.

    Those belong to the comparison.
    """
    return any(
        name.startswith("method.") or name.removeprefix("train.") not in shared for name in names
    )


def _with_several_settings(rows: Sequence[Row]) -> set[str]:
    """Return the methods with several settings.

    Older records do not say what was chosen; then several settings were set by hand.
    """
    settings: dict[str, set[str]] = {}
    for row in rows:
        settings.setdefault(row.method, set()).add(canonical(row.options))
    return {method for method, of in settings.items() if len(of) > 1}


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
    alike: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        alike.setdefault((row.method, row.tuning), []).append(row)
    for row in rows:
        like_it = alike[row.method, row.tuning]
        same = common([other.training for other in like_it])
        own = {f"train.{k}": v for k, v in row.training.items() if k not in same}
        own |= {"record": row.records[0][:8]} if len(like_it) > 1 else {}
        parts = [f"{name}={plain(value)}" for name, value in sorted(own.items())]
        made.append(replace(row, setting=", ".join([f"tuned, n={row.tuning}", *parts])))
    return made


def tuning_name(tuning: int) -> str:
    """Write how the settings of a row were found: "default", "tuned (n=16)" or "by hand"."""
    return NAMES.get(tuning) or f"tuned (n={tuning})"
