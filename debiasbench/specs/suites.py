"""Suites by name or by file: read from TOML and checked; without torch."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from debiasbench.common.errors import OptionError, UnknownNameError, suggestion
from debiasbench.common.regular import read_regular
from debiasbench.common.wording import listed, shortened, shown
from debiasbench.specs.resolve import check_seed
from debiasbench.specs.search import check_trials
from debiasbench.specs.suite import Block, SearchOf, StandIn, Suite, no_method
from debiasbench.specs.words import BARE, SCOPES, full_name, short_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

T = TypeVar("T")

MOST_BYTES = 16 << 20  # of a suite file
REQUIRED = ("name", "description", "source")
KEYS = ("name", "description", "source", "base", "grid", "runs", "search", "stand_in")


def names() -> list[str]:
    """Return the names of the suites that come with debiasbench."""
    return names_in(_builtin())


def names_in(folder: Any) -> list[str]:
    """Return the names of the TOML files in a folder of the package."""
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if _is_toml(f.name))


def read(place: str | Path) -> Suite:
    """Read a suite by the name of one that comes with debiasbench, or by the path of a TOML file.

    Raises `OptionError` naming the file, and `UnknownNameError`.
    """
    hint = "To read a file, give a path that ends in .toml"
    return read_toml(place, _builtin(), "suite", hint, _suite)


def read_toml(
    place: str | Path,
    builtin: Any,
    kind: str,
    hint: str,
    made: Callable[[Mapping[str, Any], str], T],
    most: int = MOST_BYTES,
) -> T:
    """Return what `made` makes of a TOML file and its name.

    `place`: the name of a file in the folder `builtin` of the package, or the path of a file.
    `kind`, `hint`: for the message about a name that there is not. `most`: bytes of a file. Raises
    `OptionError` naming the file, and `UnknownNameError`.
    """
    file = str(place)
    if not _is_toml(file):
        if file not in (known := names_in(builtin)):
            raise UnknownNameError(kind, file, known, hint)
        file = f"{file}.toml"
        text = builtin.joinpath(file).read_text("utf-8")
    else:
        try:
            text = read_regular(Path(file), most).decode()
        except OSError as error:
            raise OptionError(f"{file} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise OptionError(f"{file} cannot be read: {error}") from error
    try:
        return made(_parsed(text), file)
    except OptionError as error:
        raise OptionError(f"{file}: {error}") from error


def _parsed(text: str) -> dict[str, Any]:
    """Return the tables of a TOML file; raises `OptionError`."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise OptionError("the file is nested too deeply") from error
    except ValueError as error:  # also for a number of more than 4,300 digits
        raise OptionError(f"the file is not valid TOML ({shortened(str(error))})") from error


def example(name: str) -> str:
    """Return a suite file with comments, for `debiasbench suite new`."""
    text: str = _builtin().joinpath("example.txt").read_text("utf-8")
    return text.replace('"NAME"', json.dumps(name), 1)


def _builtin() -> Any:
    return files("debiasbench").joinpath("suites")


def _is_toml(name: str) -> bool:
    return name.endswith(".toml")


# --- from tables to a suite -------------------------------------------------------------------


def _suite(data: Mapping[str, Any], file: str) -> Suite:
    _check_keys(data, KEYS, "a suite")
    texts = {key: value.strip() for key in REQUIRED if isinstance(value := data.get(key), str)}
    problems = [f'{key} is missing: add {key} = "..."' for key in REQUIRED if not texts.get(key)]
    runs = data.get("runs", [{}])
    if not isinstance(runs, list) or not all(isinstance(block, dict) for block in runs):
        raise OptionError("runs is not a list of tables: write [[runs]] above each block")
    stand_ins = _table(data, "stand_in")
    suite = Suite(
        **{key: texts.get(key, "") for key in REQUIRED},
        file=file,
        common=_block(_table(data, "base"), _table(data, "grid")),
        blocks=tuple(
            _block({k: v for k, v in block.items() if k != "grid"}, _table(block, "grid"))
            for block in runs
        ),
        stand_ins={name: _stand_in(name, _table(stand_ins, name)) for name in stand_ins},
        search=_search(_table(data, "search")) if "search" in data else None,
    )
    if not suite.methods():
        problems.append(no_method({**suite.common.words, **next(suite.rows(), {})}))
    if problems:
        raise OptionError("; ".join(problems))
    return suite


def _check_keys(given: Iterable[str], known: Iterable[str], owner: str) -> None:
    for key in given:
        if key not in known:
            is_word = key.partition(".")[0] in (*BARE, *SCOPES)
            hint = f" Write {key} below [base] or [grid]." if is_word else suggestion(key, known)
            raise OptionError(f"{owner} has no key {shown(key)}.{hint} Keys: {listed(list(known))}")


def _table(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = data.get(key, {})
    if not isinstance(table, dict):
        raise OptionError(f"{key} = {shown(table)} is not a table: write [{key}] above its lines")
    return table


def _search(table: Mapping[str, Any]) -> SearchOf:
    _check_keys(table, [f.name for f in dataclasses.fields(SearchOf)], "search")
    found = SearchOf(**table)
    check_trials(found.trials)
    if found.select is not None and not isinstance(found.select, str):
        raise OptionError(f"select = {shown(found.select)}: must be the name of a selection rule")
    return found


def _stand_in(dataset: str, table: Mapping[str, Any]) -> StandIn:
    known = [f.name for f in dataclasses.fields(StandIn)]
    _check_keys(table, known, f"stand_in.{dataset}")
    is_text = "texts" in table or "words" in table
    if is_text and "input" in table:
        raise OptionError(
            f"stand_in.{dataset}: keep input for images, or texts and words for texts"
        )
    content = ["texts", "words"] if is_text else ["input"]
    for key in content + [k for k in known if k not in {"input", "texts", "words"}]:
        value = table.get(key)
        sizes = value if key == "input" and isinstance(value, list) and value else [value]
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            valid = "a shape such as [3, 28, 28]" if key == "input" else "a number above 0"
            raise OptionError(f"stand_in.{dataset}: {key} = {shown(value)}, must be {valid}")
    return StandIn(**{**table, "input": tuple(table.get("input", ()))})


# --- from lines to words ----------------------------------------------------------------------


def _block(base: Mapping[str, Any], grid: Mapping[str, Any]) -> Block:
    words: dict[str, object] = {}
    for name, value in _lines(base):
        _add(words, name, value)
    taken = dict(words)
    axes = {}
    for written, values in _lines(grid):
        tied = [name.strip() for name in written.split(",")]
        alternatives = _alternatives(tied, values)
        axes[", ".join(tied)] = alternatives
        for name, value in alternatives[0].items():
            _add(taken, short_name(name), value)
    return Block(words, axes)


def _lines(table: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Names and values; TOML reads `train.lr = 1` as a table unless "train.lr" is quoted."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def _alternatives(tied: list[str], values: object) -> tuple[dict[str, object], ...]:
    """Return the words of each value of a line, whose names `tied` change together."""
    line = ", ".join(tied)
    if not isinstance(values, list) or not values:
        raise OptionError(f"{line} = {shown(values)} in a grid: write a list of values, [...]")
    alternatives = []
    for value in values:
        row = value if len(tied) > 1 else [value]
        if not isinstance(row, list) or len(row) != len(tied):
            raise OptionError(
                f"{line}: these are {len(tied)} names, so each of the values must be a list of "
                f"{len(tied)}, not {shown(value)}"
            )
        words: dict[str, object] = {}
        for name, single in zip(tied, row, strict=True):
            _add(words, name, single)
        alternatives.append(words)
    return tuple(alternatives)


def _add(words: dict[str, object], name: str, value: object) -> None:
    """Add a word after checking it; raises `OptionError` for a name that is in `words` already."""
    full = full_name(name, bare=BARE)
    if full in words:
        raise OptionError(f"{name} is given twice: keep it in the base or in one line of the grid")
    _check_value(full, value)
    words[full] = value


def _check_value(name: str, value: object) -> None:
    if name == "seed":
        check_seed(value)
    elif name in BARE:
        if not isinstance(value, str):
            raise OptionError(f'{name} = {shown(value)}: must be a name, {name} = "..."')
        if name == "sparse" and ":" in value:
            raise OptionError(
                f'sparse = "{value}": write sparse = "{value.partition(":")[0]}" and each option '
                'on its own line, "sparse.OPTION" = VALUE'
            )
    elif not all(
        isinstance(item, (str, int, float))
        for item in (value if isinstance(value, list) else [value])
    ):
        raise OptionError(
            f"{short_name(name)} = {shown(value)}: must be a number, a text, true, false, or a "
            "list of these"
        )
