"""Several values of an option: the grid of runs of each method in a comparison; without torch."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError, suggestion
from debiasbench.common.wording import listed, shown
from debiasbench.specs.words import (
    SCOPES,
    as_text,
    full_name,
    option_names,
    read_setting,
    refuse_bare,
    split_commas,
    suggest,
)

if TYPE_CHECKING:
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.words import Words

LIMIT = 100_000  # runs; a larger grid is more likely a mistake than a plan


def read_lists(settings: Iterable[str]) -> dict[str, list[object]]:
    """Read NAME=VALUE,VALUE,... settings; return the values, as text, by name as written.

    A comma in [brackets] or "double quotes" does not separate values: `model.hidden=[8,8],[16]`
    has two. A value in double quotes is a JSON string and stands for its text: `note="a,b",c` has
    the values `a,b` and `c`, and `note=""` an empty text.

    Raises `OptionError` for a name given twice, an empty value and a value given twice.
    """
    lists: dict[str, list[object]] = {}
    for setting in settings:
        name, text = read_setting(setting)
        if name in lists:
            raise OptionError(f"--set {name} is given twice. Write all values in one: {name}=A,B,C")
        values: list[object] = [_value(part.strip(), setting) for part in split_commas(text)]
        value, times = Counter(values).most_common(1)[0]
        if times > 1:
            raise OptionError(f"--set {setting}: the value {value} is given {times} times")
        lists[name] = values
    return lists


def _value(text: str, setting: str) -> str:
    if not text:
        raise OptionError(
            f'--set {setting}: a value is empty. Remove a comma, or write "" for an empty text'
        )
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except json.JSONDecodeError as error:
        raise OptionError(f"--set {setting}: {text} is not a JSON string ({error.msg})") from error


def expand(
    values: Mapping[str, Sequence[object]],
    methods: Sequence[str],
    plugins: Plugins,
    *,
    repeats: int = 1,
    parts: Words | None = None,
) -> dict[str, list[Words]]:
    """Return the grid of each method: full names and one value each, for all combinations.

    `values`: names -> values, such as `read_lists` returns. The last name changes fastest. A name
    is one of
    - `rest.density`: an option of the method of this name alone;
    - `train.lr`, `dataset.ratio`, `model.width`, `sparse.density`: applies to all methods. A method
      that is called like one of these scopes is reached by its options' names alone;
    - `density` or `method.density`: applies to each of `methods` that has this option.

    `methods`: registered names, each once. `repeats`: runs of each combination, such as the
    number of seeds; they count towards `LIMIT`. `parts`: the names of the data set, the model and
    the sparsifier, if they are known, for suggestions.

    The words hold neither the method nor a seed: add "method", "dataset" and "seed", and give them
    to `words.arguments`.

    Raises `OptionError`, also for a grid of more than `LIMIT` runs, and `UnknownNameError`.
    """
    if not methods:
        raise OptionError("There is no method to compare: name at least one")
    options = {method: option_names(plugins.methods, method) for method in methods}
    if len(options) < len(methods):
        raise OptionError(f"A method is named twice: {', '.join(methods)}")
    grids: dict[str, dict[str, Sequence[object]]] = {method: {} for method in methods}
    for written, several in values.items():
        if not several:
            raise OptionError(f"{written} has no value")
        for method, name in _targets(written, options, plugins, parts or {}):
            if name in grids[method]:
                raise OptionError(
                    f"{name.removeprefix('method.')} of method {method} is given twice, the second "
                    f"time as {written}={','.join(map(as_text, several))}. Keep one of them"
                )
            grids[method][name] = several
    runs = repeats * sum(prod(map(len, grid.values())) for grid in grids.values())
    if runs > LIMIT:
        raise OptionError(f"This grid has {runs:,} runs, more than {LIMIT:,}. Give fewer values")
    return {
        method: [dict(zip(grid, row, strict=True)) for row in product(*grid.values())]
        for method, grid in grids.items()
    }


def _targets(
    written: str,
    options: Mapping[str, Sequence[str]],
    plugins: Plugins,
    parts: Words,
) -> list[tuple[str, str]]:
    """Return the methods that a name applies to, each with the full name of the option.

    `options`: method -> names of its options. `parts`: see `expand`.
    """
    refuse_bare(written)
    scope, dot, option = written.rpartition(".")
    if dot and scope not in SCOPES and scope in options:
        if option not in options[scope]:
            raise OptionError(
                f"method {scope}: no option {shown(option)}."
                f"{suggest(option, options[scope], plugins, parts)} "
                f"Options: {listed(options[scope])}. See `debiasbench show {scope}`"
            )
        return [(scope, f"method.{option}")]
    if dot and scope not in SCOPES:
        known = [*(s for s in SCOPES if s != "method"), *options]
        raise OptionError(
            f"{shown(written)} is not a valid name.{suggestion(scope, known)} Valid names are "
            f"OPTION, {', '.join(f'{s}.OPTION' for s in known)}"
        )
    name = full_name(written)
    if not name.startswith("method."):
        return [(method, name) for method in options]
    owners = [method for method, names in options.items() if option in names]
    if not owners:
        names = [name for names in options.values() for name in names]
        noun = "method" if len(options) == 1 else "methods"
        raise OptionError(
            f"Unknown option {shown(option)} of {noun} {listed(options)}."
            f"{suggest(option, names, plugins, parts)} Options of the data set, the model, the "
            "training and the sparsifier have a prefix, such as train.lr"
        )
    return [(method, name) for method in owners]


def seeds(text: str) -> list[int]:
    """Read seeds such as "0-2" or "0,3,7-9"; a range includes both ends.

    Raises `OptionError` for anything else, for a seed given twice and for more than `LIMIT`.
    """
    chosen: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,18})(?:\s*-\s*([0-9]{1,18}))?\s*", part)
        if match is None:
            raise OptionError(
                f"Seeds {text!r}: {part!r} is not a whole number from 0, or a range such as 0-2"
            )
        first = int(match[1])
        last = int(match[2] or first)
        if last < first:
            raise OptionError(
                f"Seeds {text!r}: the last seed of the range {part.strip()} is less than the first"
            )
        if len(chosen) + last - first + 1 > LIMIT:
            raise OptionError(f"Seeds {text!r}: more than {LIMIT:,}")
        chosen += range(first, last + 1)
    seed, times = Counter(chosen).most_common(1)[0]
    if times > 1:
        raise OptionError(f"Seeds {text!r}: {seed} is given {times} times")
    return chosen
