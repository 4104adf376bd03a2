"""Which rows of the boards of several data sets belong to the same method with the same setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from debiasbench.common.canonical import canonical
from debiasbench.leaderboard.frame import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.row import Level, Row

ABSENT = "absent"  # an option that a method does not have on a data set, or had not yet


@dataclass(frozen=True)
class Match:
    """A method with one setting: its row on each board, None where it has none.

    `setting`: a few of the options that tell it from other matches of the method. `differing`: the
    options of the method whose values differ between the boards, with the values in their order.
    """

    method: str
    setting: str
    level: Level
    rows: list[Row | None]
    differing: dict[str, list[str]]

    @property
    def name(self) -> str:
        """Method and setting."""
        return f"{self.method} ({self.setting})" if self.setting else self.method

    @property
    def present(self) -> list[Row]:
        """The rows that there are."""
        return [row for row in self.rows if row is not None]


def matches(boards: Sequence[Board]) -> list[Match]:
    """Match the rows of boards; the order of rows does not matter.

    Rows belong together if they have the same method (and sparse training algorithm) of the same
    distribution, and see the same labels. The values of options need not be equal: data sets have
    defaults and presets of their own. Only where a method has several settings on one board, its
    rows are matched by the options and training settings that differ between these settings; a
    board on which the method has other values of them has none of these rows. Example: `rest` with
    density=0.05 and 0.01 on a data set, and with density=0.05 and another weight on a second one,
    are two lines; the second data set has a row for density=0.05 only.

    Where a board has a row with newer revisions of the same code, the stale row is left out.
    """
    found: dict[tuple[Level, str, str], list[list[Row]]] = {}
    for number, board in enumerate(boards):
        for row in board.rows:
            key = row.level, row.method, _distribution(row.made_by)
            found.setdefault(key, [[] for _ in boards])[number].append(row)
    makers: dict[str, set[str]] = {}
    for _, method, maker in found:
        makers.setdefault(method, set()).add(maker)
    made = []
    for key in sorted(found):
        level, method, maker = key
        of = f"of={maker}" if len(makers[method]) > 1 else ""
        for setting, rows in _by_setting(found[key]):
            words = ", ".join(filter(None, (of, setting)))
            made.append(Match(method, words, level, rows, _differing(rows)))
    return made


def _distribution(made_by: str) -> str:
    """Return the distributions without their versions."""
    return "; ".join(part.rpartition(" ")[0] or part for part in made_by.split("; "))


def _by_setting(boards: Sequence[Sequence[Row]]) -> list[tuple[str, list[Row | None]]]:
    names = sorted(set().union(*(_telling(rows) for rows in boards)))
    found: dict[str, tuple[dict[str, Any], list[Row | None]]] = {}
    for number, rows in enumerate(boards):
        for row in sorted(rows, key=_preference):
            settings = _settings(row)
            values = {name: settings.get(name, ABSENT) for name in names}
            of = found.setdefault(canonical(values), (values, [None] * len(boards)))[1]
            of[number] = of[number] or row
    needed = _needed([values for values, _ in found.values()], names)
    return [(_text(found[key][0], needed), found[key][1]) for key in sorted(found)]


def _needed(settings: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return a few names whose values tell all settings apart, options of the method first."""
    chosen: list[str] = []

    def told(name: str) -> int:
        return len({canonical({n: of[n] for n in [*chosen, name]}) for of in settings})

    left = sorted(names, key=lambda name: (name.startswith("train."), name))
    while left and (not chosen or told(chosen[-1]) < len(settings)):
        best = max(left, key=told)
        chosen.append(best)
        left.remove(best)
    return sorted(chosen)


def _text(values: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name}={plain(values[name])}" for name in names)


def _telling(rows: Sequence[Row]) -> set[str]:
    """Return the names of the settings in which the rows of one board differ."""
    settings = [_settings(row) for row in [r for r in rows if not r.stale] or rows]
    names = set().union(*settings)
    return {
        name
        for name in names
        if len({canonical({"": one.get(name, ABSENT)}) for one in settings}) > 1
    }


def _settings(row: Row) -> Mapping[str, Any]:
    training = {f"train.{name}": value for name, value in row.training.items()}
    return {**row.options, **training, "of": row.made_by}


def _preference(row: Row) -> tuple[object, ...]:
    """Sort rows with the same setting: not stale, most seeds, newest; then anything fixed."""
    newest = [-number for _, number in sorted(row.revisions.items())]
    return bool(row.stale), -len(row.values), newest, row.made_by, row.records


def _differing(rows: Sequence[Row | None]) -> dict[str, list[str]]:
    present = [row for row in rows if row is not None]
    names = sorted(set().union(*(row.options for row in present)))
    values = {name: [plain(row.options.get(name, ABSENT)) for row in present] for name in names}
    return {name: of for name, of in values.items() if len(set(of)) > 1}
