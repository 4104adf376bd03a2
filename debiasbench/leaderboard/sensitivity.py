"""How much depends on choices of the evaluation: selection rule, metric, and validation split.

Each choice is a view of the same methods. One is changed at a time, against the data set's own.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import RecordError, UnknownNameError
from debiasbench.leaderboard.board import boards, of_dataset
from debiasbench.leaderboard.protocol import LAST, Agreement, Line, level_of, ordered, row_of
from debiasbench.leaderboard.row import Difference
from debiasbench.records.metrics import METRICS
from debiasbench.records.selection import RULES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.row import Row
    from debiasbench.leaderboard.standing import Standing
    from debiasbench.leaderboard.tuning import Tuned
    from debiasbench.records.correct import Correct
    from debiasbench.records.record import Record
    from debiasbench.specs.spec import Spec

VALIDATION = "val"  # the option of data sets that changes their validation split alone

Choice = Literal["own", "rule", "metric", "validation"]


@dataclass(frozen=True)
class View:
    """One way to evaluate: its name, the choice in which it differs from the own one, its board."""

    name: str
    choice: Choice
    board: Board


@dataclass(frozen=True)
class Gain:
    """How much better a line is than the baseline at the selected epoch, and after the last one."""

    name: str
    selected: Difference
    last: Difference

    @property
    def of_selection(self) -> float:
        """What of the gain is due to the selection of an epoch; NaN if it is not known."""
        return self.selected.mean - self.last.mean


@dataclass(frozen=True)
class Sensitivity:
    """The lines of one data set and network in all views; `views` has the own one first.

    `lines` are in sections by the labels that the method reads, then in order of the own view.
    `gains`: over the baseline, if there is one.
    """

    views: list[View]
    lines: list[Line]
    agreements: list[Agreement]
    baseline: str | None
    gains: list[Gain]

    @property
    def own(self) -> Board:
        """The board of the data set's own metric, rule and validation split."""
        return self.views[0].board


def sensitivities(
    records: Sequence[Record],
    *,
    dataset: str | None = None,
    metric: str | None = None,
    select: str | None = None,
    baseline: str | None = None,
    correct: Mapping[str, Mapping[str, Correct]] | None = None,
    unverified: Collection[str] = (),
    standing: Standing | None = None,
    tuned: Tuned | None = None,
) -> list[Sensitivity]:
    """Compare the views of each data set and network.

    `records` and `correct` must hold all rules: see `gather(whole=True)`. `metric`, `select`: the
    own view's, instead of those of the data set. `baseline`: the name of a row whose lead or lag is
    divided into training and selection. The other arguments are those of `boards`.

    Raises `RecordError` if no data set has two views, and `UnknownNameError`.
    """
    if dataset is not None:
        records = of_dataset(records, dataset)
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(_family(record.spec), []).append(record)

    def made(some: Sequence[Record], rule: str, name: str) -> list[Board]:
        return boards(
            some,
            metric=name,
            select=rule,
            correct=correct,
            unverified=unverified,
            standing=standing,
            tuned=tuned,
        )

    found = []
    for _, group in sorted(groups.items()):
        by_data: dict[tuple[bool, str, str], list[Record]] = {}
        for record in group:
            value = str(record.spec.dataset.options.get(VALIDATION, ""))
            by_data.setdefault((bool(value), value, record.task.fingerprint), []).append(record)
        first, *rest = sorted(by_data)
        own, others = by_data[first], [by_data[key] for key in rest if key[1] != first[1]]
        task = own[0].task
        rule, name = select or task.select, metric or task.metric
        (board,) = made(own, rule, name)
        views = [View(rule, "own", board)]
        for other in RULES:
            views += [View(other, "rule", b) for b in made(own, other, name) if other != rule]
        for other in METRICS:
            views += [View(other, "metric", b) for b in made(own, rule, other) if other != name]
        for some in others:
            value = some[0].spec.dataset.options.get(VALIDATION, "as given")
            view = f"{VALIDATION}={value}"
            views += [View(view, "validation", b) for b in made(some, rule, name)]
        if (one := _sensitivity(views, baseline)) is not None:
            found.append(one)
    if not found:
        raise RecordError(
            "--sensitivity compares selection rules, metrics and validation splits, and no data "
            "set here has two methods with results under two of them"
        )
    if baseline is not None and all(one.baseline is None for one in found):
        names = {line.name for one in found for line in one.lines}
        raise UnknownNameError("baseline", baseline, names)
    return found


def _family(spec: Spec) -> str:
    """Return what runs share that differ in the validation split at most."""
    options = {k: v for k, v in spec.dataset.options.items() if k != VALIDATION}
    return canonical([spec.dataset.name, options, asdict(spec.model)])


def _sensitivity(views: Sequence[View], baseline: str | None) -> Sensitivity | None:
    own = views[0].board
    rows: list[dict[str, Row]] = [{} for _ in own.rows]
    for view in views:
        for under, row in zip(rows, _beside(own.rows, view), strict=True):
            if row is not None:
                under[view.name] = row
    lines = [
        Line(row.name, level_of(row, under.get(LAST, row)), under)
        for row, under in zip(own.rows, rows, strict=True)
    ]
    shown = [
        view for view in views if any(_has(line.rows.get(view.name)) for line in lines)
    ]  # such as no adjusted average without groups
    if len(shown) < 2 or len(lines) < 2:
        return None
    done: list[Line] = []
    agreements: list[Agreement] = []
    of_own = views[0].name
    for level in sorted({line.level for line in lines}):
        section = [line for line in lines if line.level == level]
        ranked = {line.name: line for line in section}
        for view in shown:
            both = [line for line in section if view.name in line.rows]
            board = {of_own: own, view.name: view.board}
            some = [replace(line, rows={name: line.rows[name] for name in board}) for line in both]
            if not some:
                continue
            made, agreed = ordered(some, of_own, board)
            agreements += [a for a in agreed if a.rule == view.name]
            for line in made:
                # the ranks in the own view are those among all lines, not among those of this view
                before, ranks = ranked[line.name], line.ranks.items()
                ranked[line.name] = replace(
                    before,
                    ranks=before.ranks | {name: at for name, at in ranks if name == view.name},
                    best=before.best | (line.best & {view.name}),
                )
        done += ranked.values()
    known = None if baseline is None else next((x for x in done if x.name == baseline), None)
    gains = [] if known is None else _gains(done, known, views)
    return Sensitivity(shown, done, agreements, None if known is None else baseline, gains)


def _gains(lines: Iterable[Line], base: Line, views: Sequence[View]) -> list[Gain]:
    own, last = views[0], next((v for v in views if v.name == LAST), None)
    if last is None or own.board.comparison is None or last.board.comparison is None:
        return []
    others = [line for line in lines if line is not base and LAST in line.rows]
    of: list[list[Difference]] = []
    for view in (own, last):
        assert view.board.comparison is not None
        pairs = [(line.rows[view.name], base.rows[view.name]) for line in others]
        of.append(view.board.comparison.differences(pairs))
    gains = [Gain(line.name, *both) for line, *both in zip(others, *of, strict=True)]
    return [gain for gain in gains if not math.isnan(gain.of_selection)]


def _has(row: Row | None) -> bool:
    return row is not None and not math.isnan(row.mean)


def _beside(own: Sequence[Row], view: View) -> list[Row | None]:
    """Return for each row of the own view the row of another view that is the same method.

    Rules and metrics judge the same runs. Another validation split has runs of its own, with the
    same settings; their precision may differ if only one row of each split has these settings.
    """
    rows = view.board.rows
    if view.choice != "validation":
        of = {name: row for row in rows for name in row.records}
        return [row_of(row, of) for row in own]
    exact = {_key(row, row.training): row for row in rows}
    alike: list[dict[str, list[Row]]] = [{}, {}]
    for found, some in zip(alike, (own, rows), strict=True):
        for row in some:
            found.setdefault(_loose(row), []).append(row)
    made = []
    for row in own:
        match = exact.get(_key(row, row.training))
        ours, theirs = (found.get(_loose(row), []) for found in alike)
        made.append(theirs[0] if match is None and len(ours) == len(theirs) == 1 else match)
    return made


def _loose(row: Row) -> str:
    return _key(row, {k: v for k, v in row.training.items() if k != "precision"})


def _key(row: Row, training: dict[str, Any]) -> str:
    """Return what a row has for every validation split; levels and settings depend on it."""
    return canonical([row.method, row.made_by, row.options, training, row.revisions])
