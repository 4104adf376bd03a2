"""What a site is about: records, methods, and boards under every metric and selection rule."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from debiasbench.common.errors import UnknownNameError
from debiasbench.common.names import IMPORTED
from debiasbench.leaderboard.board import boards, of_dataset
from debiasbench.leaderboard.frame import Texts, plain
from debiasbench.leaderboard.render import heading
from debiasbench.leaderboard.site.grids import of_rules, over_data_sets
from debiasbench.leaderboard.site.names import hashed
from debiasbench.records.metrics import METRICS
from debiasbench.records.selection import RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.gather import Gathered
    from debiasbench.leaderboard.grid import Grid
    from debiasbench.leaderboard.row import Row
    from debiasbench.records.record import Record, TaskFacts
    from debiasbench.specs.spec import Choice

View = tuple[str, str]
"""A selection rule and a metric: what decides the numbers of a board."""


@dataclass(frozen=True)
class About:
    """What a method is, in one sentence, and the paper to cite; records do not hold them."""

    summary: str = ""
    citation: str = ""


@dataclass(frozen=True, eq=False)
class Place:
    """A data set and a network, whose rows may be compared: the boards of one page.

    `name`: of its files. `title`: short, without options that are equal in all places.
    `boards`: view -> board; `own` is the view that is shown first.
    """

    name: str
    title: str
    records: Sequence[Record]
    boards: Mapping[View, Board]
    own: View

    @property
    def board(self) -> Board:
        """The board that is shown first."""
        return self.boards[self.own]

    @property
    def task(self) -> TaskFacts:
        """The facts about the data."""
        return self.records[0].task

    @property
    def full_title(self) -> str:
        """The data set and the network with all options."""
        return heading(f"{self.board.dataset} · {self.board.model}")


@dataclass(frozen=True, eq=False)
class Content:
    """Everything that a site shows.

    `about`: name of a method in specs -> its sentence and paper. `across`: tables over all data
    sets. `protocols`: id of a record -> the tables that compare the selection rules on its data.
    `large`: whether it is a site as `large` makes it. `latest`: the newest record, if these are not
    all records of the site.
    """

    gathered: Gathered
    places: Sequence[Place]
    about: Mapping[str, About] = field(default_factory=dict)
    across: Sequence[Grid] = ()
    protocols: Mapping[str, Sequence[Grid]] = field(default_factory=dict)
    large: bool = False
    latest: Record | None = None

    @cached_property
    def records(self) -> dict[str, Record]:
        """Id -> record, of those that are shown."""
        return {record.id: record for place in self.places for record in place.records}

    @cached_property
    def methods(self) -> dict[str, list[tuple[Place, Row]]]:
        """Name of a method, with the sparse training algorithm -> its rows, by name."""
        found: dict[str, list[tuple[Place, Row]]] = {}
        for place in self.places:
            for row in place.board.rows:
                found.setdefault(row.method, []).append((place, row))
        return dict(sorted(found.items()))

    @cached_property
    def row_of(self) -> dict[str, tuple[Place, Row]]:
        """Id of a record -> its row on the board that is shown first."""
        return {
            name: (place, row)
            for place in self.places
            for row in place.board.rows
            for name in row.records
        }

    @cached_property
    def rules(self) -> dict[Place, Sequence[Grid]]:
        """The tables that compare the selection rules on a place, if there are any."""
        return {self.row_of[name][0]: grids for name, grids in self.protocols.items()}

    @cached_property
    def newest(self) -> Record:
        """The record that was made last; its date and commit are those of the site."""
        if self.latest is not None:
            return self.latest
        return newest(self.gathered, self.records.values())

    def known_of(self, row: Row) -> About:
        """Return the sentence and the paper of the method of a row."""
        return self.about.get(self.records[row.records[0]].spec.method.name, About())


def newest(gathered: Gathered, records: Iterable[Record]) -> Record:
    """Return the record that was made last."""
    started = gathered.started  # of records that hold only what tables need
    return max(records, key=lambda r: (started.get(r.id, r.provenance.started), r.id))


def collect(
    gathered: Gathered,
    *,
    dataset: str | None = None,
    metric: str | None = None,
    select: str | None = None,
    baseline: str | None = None,
    about: Mapping[str, About] | None = None,
    whole: bool = True,
) -> Content:
    """Make the boards of all records; see `boards` for the arguments and what is raised.

    `gathered`: with whole records. `whole`: make the boards of all metrics and rules, not only
    those that are shown first.
    """
    records = gathered.records if dataset is None else of_dataset(gathered.records, dataset)
    groups = grouped(records)
    keys = list(groups)
    make = partial(
        boards,
        records,
        **gathered.evidence,
    )
    first = make(metric=metric, select=select, baseline=baseline)
    made: list[dict[View, Board]] = [{} for _ in keys]
    for view in [(rule, name) for rule in RULES for name in METRICS] if whole else ():
        try:
            found = make(metric=view[1], select=view[0], baseline=baseline)
        except UnknownNameError:  # a row of this name exists under another rule only
            found = make(metric=view[1], select=view[0])
        for views, board in zip(made, found, strict=True):
            views[view] = board
    for views, board in zip(made, first, strict=True):
        views[board.rule, board.metric] = board
    places = [
        Place(
            name=hashed(title, *key),
            title=title,
            records=groups[key],
            boards=views,
            own=(board.rule, board.metric),
        )
        for key, title, views, board in zip(keys, titles(groups), made, first, strict=True)
    ]
    asked = {"metric": metric, "select": select, "baseline": baseline}
    return Content(
        gathered,
        places,
        about or {},
        over_data_sets(gathered, records, asked),
        of_rules(gathered, records, asked) if whole else {},
    )


Groups = dict[tuple[str, str, str], "list[Record]"]


def grouped(records: Sequence[Record]) -> Groups:
    """Return the records of each board, in the order of `boards`, which groups them equally."""
    texts, groups = Texts(), Groups()
    for record in records:
        data, model = texts.label(record.spec.dataset), texts.label(record.spec.model)
        groups.setdefault((data, model, record.task.fingerprint), []).append(record)
    return {key: groups[key] for key in sorted(groups)}


def titles(groups: Groups) -> list[str]:
    """Name data set and network of each group, with those options in which they differ."""
    firsts = [of[0] for of in groups.values()]
    data = _short([record.spec.dataset for record in firsts])
    models = _short([record.spec.model for record in firsts])
    names = [f"{one} · {other}" for one, other in zip(data, models, strict=True)]
    repeated = Counter(names)
    return [
        f"{name} · data {record.task.fingerprint[:8]}" if repeated[name] > 1 else name
        for name, record in zip(names, firsts, strict=True)
    ]


def _short(choices: Sequence[Choice]) -> list[str]:
    named = []
    for choice in choices:
        same = [other.options for other in choices if other.name == choice.name]
        words = [
            f"{key}={plain(value)}"
            for key, value in sorted(choice.options.items())
            if any(key not in other or other[key] != value for other in same)
        ]
        named.append(heading(" ".join([choice.name.removeprefix(IMPORTED), *words])))
    return named
