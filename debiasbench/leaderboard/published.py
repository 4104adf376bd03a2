"""Published values of a suite: what papers print for its runs, with source; read from TOML."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import OptionError, suggestion
from debiasbench.common.wording import listed, shown
from debiasbench.records.metrics import METRICS
from debiasbench.records.selection import RULES
from debiasbench.specs.suites import names_in, read_toml
from debiasbench.specs.words import BARE, full_name, short_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from debiasbench.specs.spec import Spec
    from debiasbench.specs.words import Words

MOST_BYTES = 1 << 20
KEYS = ("suite", "metric", "select", "sources", "values")
OF_SOURCE = ("citation", "place", "seeds", "differs", "notes")
OF_VALUES = ("source", "accuracy", "deviation")


@dataclass(frozen=True)
class Source:
    """Where values are printed.

    `place`: table or page. `seeds`: number of runs behind a value; None if it is not said.
    `differs`: how its protocol differs from the suite, so that values are shown and not judged.
    """

    name: str
    citation: str
    place: str
    seeds: int | None = None
    differs: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Value:
    """A published accuracy of the runs that have these words, such as a method and a ratio.

    `accuracy`, `deviation`: fractions. `deviation`: standard deviation over seeds; NaN if it is
    not printed.
    """

    source: Source
    words: Words
    accuracy: float
    deviation: float = math.nan

    def describes(self, spec: Spec) -> bool:
        """Return whether a run is one of those behind the value."""
        return all(_setting(spec, name) == value for name, value in self.words.items())

    @property
    def title(self) -> str:
        """The words, such as "erm dataset.ratio=0.005"."""
        rest = [f"{short_name(k)}={v:g}" if isinstance(v, float) else f"{short_name(k)}={v}"
                for k, v in self.words.items() if k != "method"]  # fmt: skip
        return " ".join([str(self.words["method"]), *rest])


@dataclass(frozen=True)
class Published:
    """The published values of a suite: their metric, and the selection rule to compare with."""

    suite: str
    metric: str
    select: str
    values: tuple[Value, ...]
    sources: Mapping[str, Source] = field(default_factory=dict)


def names() -> list[str]:
    """Return the names of the suites that have published values."""
    return names_in(_folder())


def read(place: str | Path) -> Published:
    """Read the values of a suite that comes with debiasbench, or of a TOML file.

    Raises `OptionError` naming the file, and `UnknownNameError`.
    """
    hint = "For other suites, give a file with --values FILE.toml"
    return read_toml(place, _folder(), "suite with published values", hint, _published, MOST_BYTES)


def _folder() -> Any:
    return files("debiasbench").joinpath("suites", "published")


def _published(data: Mapping[str, Any], _file: str) -> Published:
    _check(data, KEYS, "a file of published values")
    for key, known in (("metric", METRICS), ("select", RULES)):
        if data.get(key) not in known:
            raise OptionError(f"{key} = {shown(data.get(key))}: must be one of {listed(known)}")
    sources = {name: _source(name, of) for name, of in _table(data, "sources").items()}
    rows = data.get("values")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise OptionError("values: write [[values]] above the lines of each method")
    values = [value for row in rows for value in _values(row, sources)]
    suite = data.get("suite")
    if not isinstance(suite, str) or not suite:
        raise OptionError(f'suite = {shown(suite)}: must be a name, suite = "..."')
    return Published(suite, data["metric"], data["select"], tuple(values), sources)


def _source(name: str, table: Any) -> Source:
    if not isinstance(table, dict):
        raise OptionError(f"sources.{name} is not a table: write [sources.{name}] above its lines")
    _check(table, OF_SOURCE, f"sources.{name}")
    for key in ("citation", "place"):
        if not isinstance(table.get(key), str) or not table[key]:
            raise OptionError(f'sources.{name}: {key} is missing: add {key} = "..."')
    seeds = table.get("seeds")
    if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1):
        raise OptionError(f"sources.{name}: seeds = {shown(seeds)}, must be a number above 0")
    differs, notes = table.get("differs", ""), table.get("notes", [])
    if not isinstance(differs, str) or not _are(notes, str):
        raise OptionError(f"sources.{name}: differs must be a text, and notes a list of texts")
    return Source(name, table["citation"], table["place"], seeds, differs, tuple(notes))


def _values(row: Mapping[str, Any], sources: Mapping[str, Source]) -> Iterable[Value]:
    of = row.get("source")
    if not isinstance(of, str) or of not in sources:
        raise OptionError(
            f"values: source = {shown(of)}, must be one of {listed(sources)}"
            + suggestion(str(of), sources)
        )
    words = {full_name(k, bare=BARE): v for k, v in row.items() if k not in OF_VALUES}
    if not isinstance(words.get("method"), str):
        raise OptionError('values: a row has no method: add method = "..."')
    lists = {name: value for name, value in words.items() if isinstance(value, list)}
    if len(lists) > 1:
        raise OptionError(f"values of {words['method']}: only one of {listed(lists)} can be a list")
    accuracies, deviations = _list(row.get("accuracy")), _list(row.get("deviation", []))
    ((name, settings),) = lists.items() or ((None, [None]),)
    percent = [*accuracies, *deviations]
    if (
        not accuracies
        or len(accuracies) != len(settings)
        or len(deviations) not in {0, len(accuracies)}
        or not all(isinstance(p, (int, float)) and 0 <= p <= 100 for p in percent)
    ):
        raise OptionError(
            f"values of {words['method']}: accuracy, and deviation if there is one, must have "
            f"{len(settings)} numbers from 0 to 100, one for each value of {name or 'the row'}"
        )
    for setting, accuracy, deviation in zip_longest(settings, accuracies, deviations):
        own = words if name is None else {**words, name: setting}
        spread = math.nan if deviation is None else deviation / 100
        yield Value(sources[of], own, accuracy / 100, spread)


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _table(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = data.get(key)
    if not isinstance(table, dict) or not table:
        raise OptionError(f"{key} is missing: write [{key}.NAME] above the lines of each of them")
    return table


def _check(given: Iterable[str], known: Sequence[str], owner: str) -> None:
    for key in given:
        if key not in known:
            raise OptionError(
                f"{owner} has no key {shown(key)}.{suggestion(key, known)} Keys: {listed(known)}"
            )


def _setting(spec: Spec, name: str) -> object:
    """Return the value that a full name, such as "dataset.ratio", has in a spec."""
    part, dot, option = name.partition(".")
    if not dot:
        choice = getattr(spec, part)
        return getattr(choice, "name", choice)
    options = spec.training if part == "train" else getattr(getattr(spec, part), "options", {})
    return options.get(option)
