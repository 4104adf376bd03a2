"""A suite: a TOML file that says a grid of runs, and the specs that it comes to; without torch."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import OptionError, UnknownNameError, suggestion
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.words import BARE, arguments, full_name, label, short_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.resolve import Precision
    from debiasbench.specs.spec import Spec
    from debiasbench.specs.words import Find, Words

KEYS = ("name", "description", "source", "base", "grid", "runs", "stand_in")


@dataclass(frozen=True)
class StandIn:
    """What a data set holds, so that runs can be timed on random images where its files lack."""

    input: tuple[int, ...]  # (C, H, W)
    classes: int
    biases: int
    train: int  # samples
    val: int
    test: int


@dataclass(frozen=True)
class Block:
    """Words that runs share, and a grid of those in which they differ.

    `grid`: name, or names tied together and joined by ", " -> the words of each alternative.
    """

    words: Words = field(default_factory=dict)
    grid: Mapping[str, tuple[Words, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """A grid of runs: every block, over every combination of the common grid and its own.

    What a block says replaces what `common` says. `file` is for messages; `stand_ins` are by
    data set.
    """

    name: str
    description: str
    source: str
    file: str
    common: Block
    blocks: tuple[Block, ...]
    stand_ins: Mapping[str, StandIn]

    def specs(
        self, plugins: Plugins, find: Find | None = None, precision: Precision = "fp32"
    ) -> list[Spec]:
        """Return the specs in the order of the file, each once; see `named`."""
        return list(self.named(plugins, find, precision).values())

    def named(
        self, plugins: Plugins, find: Find | None = None, precision: Precision = "fp32"
    ) -> dict[str, Spec]:
        """Return the specs by what tells them apart, such as "density=0.05 seed=41".

        The last line of a grid changes fastest. `find` resolves the names of data sets; None takes
        them as they are. `precision`: see `make_spec`. Raises `OptionError` naming the file, and
        `PluginError` for a plugin that cannot be used.
        """
        specs: dict[str, Spec] = {}
        taken: set[str] = set()
        for own in self._rows():
            words = {**self.common.words, **own}
            spec = self._spec(words, plugins, find, precision)
            text = canonical(asdict(spec))  # not the id, which an unresolved spec lacks
            if text not in taken:
                taken.add(text)
                specs[label(own) or self.name] = spec
        return specs

    def _rows(self) -> Iterator[dict[str, object]]:
        for block in self.blocks:
            for common in _combinations(self.common.grid):
                for own in _combinations(block.grid):
                    yield {**common, **block.words, **own}

    def _spec(
        self, words: Words, plugins: Plugins, find: Find | None, precision: Precision
    ) -> Spec:
        try:
            if "method" not in words:
                given = ", ".join(map(short_name, words)) or "nothing"
                raise OptionError(
                    f'a run has no method, but {given}: write method = "NAME" into [base]'
                )
            return make_spec(plugins, **arguments(words, plugins, find), precision=precision)
        except (OptionError, UnknownNameError) as error:
            raise OptionError(f"{self.file}: {error}") from error


def names() -> list[str]:
    """Return the names of the suites that come with debiasbench."""
    return sorted(f.name.removesuffix(".toml") for f in _builtin().iterdir() if _is_toml(f.name))


def read(place: str | Path) -> Suite:
    """Read a suite by the name of one that comes with debiasbench, or by the path of a TOML file.

    Raises `OptionError` or `UnknownNameError`.
    """
    file = str(place)
    if not _is_toml(file):
        if file not in names():
            hint = "Or give a file whose name ends in .toml"
            raise UnknownNameError("suite", file, names(), hint)
        file = f"{file}.toml"
        text = _builtin().joinpath(file).read_text("utf-8")
    else:
        try:
            text = Path(file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"{file} cannot be read ({error})") from error
    try:
        return _suite(tomllib.loads(text), file)
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"{file} is no TOML ({error})") from error
    except OptionError as error:
        raise OptionError(f"{file}: {error}") from error


def _builtin() -> Any:
    return files("debiasbench").joinpath("suites")


def _is_toml(name: str) -> bool:
    return name.endswith(".toml")


def _combinations(grid: Mapping[str, tuple[Words, ...]]) -> Iterator[dict[str, object]]:
    for chosen in product(*grid.values()):
        yield {name: value for words in chosen for name, value in words.items()}


# --- from TOML to a suite ---------------------------------------------------------------------


def _suite(data: Mapping[str, Any], file: str) -> Suite:
    _check_keys(data, KEYS, "a suite")
    for key in ("name", "description", "source"):
        if not isinstance(data.get(key), str) or not data[key].strip():
            raise OptionError(f'{key} is missing: write {key} = "..."')
    runs = data.get("runs", [{}])
    if not isinstance(runs, list) or not all(isinstance(block, dict) for block in runs):
        raise OptionError("runs is no list of tables: write [[runs]] above each")
    stand_ins = _table(data, "stand_in")
    return Suite(
        name=data["name"],
        description=data["description"].strip(),
        source=data["source"].strip(),
        file=file,
        common=_block(_table(data, "base"), _table(data, "grid")),
        blocks=tuple(
            _block({k: v for k, v in block.items() if k != "grid"}, _table(block, "grid"))
            for block in runs
        ),
        stand_ins={name: _stand_in(name, _table(stand_ins, name)) for name in stand_ins},
    )


def _check_keys(given: Iterable[str], known: Iterable[str], owner: str) -> None:
    for key in given:
        if key not in known:
            raise OptionError(
                f"{owner} has no key {key!r}.{suggestion(key, known)} Keys: {', '.join(known)}"
            )


def _table(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = data.get(key, {})
    if not isinstance(table, dict):
        raise OptionError(f"{key} = {table!r} is no table: write [{key}] above its lines")
    return table


def _block(base: Mapping[str, Any], grid: Mapping[str, Any]) -> Block:
    words: dict[str, object] = {}
    for name, value in _flat(base):
        _add(words, name, value)
    seen = dict(words)
    axes = {}
    for written, values in _flat(grid):
        tied = [name.strip() for name in written.split(",")]
        axes[", ".join(tied)] = _alternatives(tied, values)
        for name, value in axes[", ".join(tied)][0].items():
            _add(seen, short_name(name), value)
    return Block(words, axes)


def _flat(table: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Names and values; `train.lr = 1` is a table to TOML unless "train.lr" is quoted."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def _alternatives(tied: list[str], values: object) -> tuple[dict[str, object], ...]:
    """Return the words of each line of values; of one name, or of several that go together."""
    name = ", ".join(tied)
    if not isinstance(values, list) or not values:
        raise OptionError(f"{name} = {values!r} in a grid: write a list of values, [...]")
    found = []
    for value in values:
        row = value if len(tied) > 1 else [value]
        if not isinstance(row, list) or len(row) != len(tied):
            raise OptionError(
                f"{name} ties {len(tied)} names together, so each of its values is a list of "
                f"{len(tied)}, not {value!r}"
            )
        words: dict[str, object] = {}
        for one, what in zip(tied, row, strict=True):
            _add(words, one, what)
        found.append(words)
    return tuple(found)


def _add(words: dict[str, object], name: str, value: object) -> None:
    """Put a checked word among others; raises `OptionError` for one that is there already."""
    full = full_name(name, bare=BARE)
    if full in words:
        raise OptionError(f"{name} is said twice: keep it in the base or in one line of the grid")
    _check_value(full, value)
    words[full] = value


def _check_value(name: str, value: object) -> None:
    if name == "seed":
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise OptionError(f"seed = {value!r}: must be a whole number, 0 or more")
    elif name in BARE:
        if not isinstance(value, str):
            raise OptionError(f'{name} = {value!r}: must be a name, {name} = "..."')
        if name == "sparse" and ":" in value:
            raise OptionError(
                f'sparse = "{value}": write the name alone and "sparse.OPTION" = VALUE beside it'
            )
    elif not all(
        isinstance(one, (str, int, float))
        for one in (value if isinstance(value, list) else [value])
    ):
        raise OptionError(
            f"{short_name(name)} = {value!r}: must be a number, a text, true, false, or a list of "
            "those"
        )


def _stand_in(dataset: str, table: Mapping[str, Any]) -> StandIn:
    known = [f.name for f in dataclasses.fields(StandIn)]
    _check_keys(table, known, f"stand_in.{dataset}")
    for key in known:
        value = table.get(key)
        sizes = value if key == "input" and isinstance(value, list) and value else [value]
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            what = "a shape such as [3, 28, 28]" if key == "input" else "a number above 0"
            raise OptionError(f"stand_in.{dataset}: {key} = {value!r}, must be {what}")
    return StandIn(**{**table, "input": tuple(table["input"])})
