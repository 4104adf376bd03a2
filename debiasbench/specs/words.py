"""The grammar of NAME=VALUE: from words to the arguments of `make_spec`; without torch.

A name has a scope and an option: `train.lr`, `dataset.ratio`, `model.width`, `sparse.density`,
`method.density`. A name without a scope is an option of the method. Suites also use the bare names
in `BARE`, which name the parts of a run.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import OptionError, UnknownNameError, close_names, suggestion
from debiasbench.common.wording import listed, shortened, shown
from debiasbench.core.settings import Training

if TYPE_CHECKING:
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.registry import Registry

SCOPES = {  # scope -> the argument of `make_spec` that takes its options
    "method": "method_options",
    "dataset": "dataset_options",
    "model": "model_options",
    "train": "training",
    "sparse": "sparse_options",
}
BARE = ("method", "dataset", "model", "sparse", "seed", "preset")

Words = Mapping[str, object]
"""Full names -> values: "dataset" -> "cmnist", "train.lr" -> 0.01, "method.density" -> 0.05."""

Find = Callable[[str], tuple[str, Mapping[str, object]]]
"""The name of a data set as written -> its full name, and the options that the name implies."""


# --- names and values -------------------------------------------------------------------------


def full_name(name: str, scope: str = "method", bare: Iterable[str] = ()) -> str:
    """Return a name with its scope: `scope` if it has none, and none for the names in `bare`.

    Raises `OptionError` for an unknown scope.
    """
    if name in bare:
        return name
    before, dot, option = name.rpartition(".")
    if not option or (dot and before not in SCOPES):
        hint = suggestion(before, SCOPES) if dot else ""
        raise OptionError(f"{shown(name)} is not a valid name.{hint} {_valid_names(scope, bare)}")
    return name if dot else f"{scope}.{name}"


def _valid_names(scope: str, bare: Iterable[str] = ()) -> str:
    if scope != "method":
        return f"Valid names are the options of the {scope}"
    others = [*bare, *(f"{other}.OPTION" for other in SCOPES if other != "method")]
    return f"Valid names are the options of the method, {', '.join(others)}"


@functools.cache  # a grid of 100,000 runs asks as often
def short_name(name: str) -> str:
    """Return a full name as people write it: an option of the method without its scope."""
    option = name.removeprefix("method.")
    return name if option in BARE else option


def as_text(value: object) -> str:
    """Return a value as a person would type it on a command line."""
    if isinstance(value, str):
        return value
    if value is None:
        return "none"
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return repr(value)  # as JSON, and ten times faster
    return json.dumps(value)


def label(words: Words) -> str:
    """Write words as people do, such as "density=0.05 train.lr=0.1"."""
    return " ".join(f"{short_name(name)}={as_text(value)}" for name, value in words.items())


def combined(parts: Iterable[Words]) -> dict[str, object]:
    """Merge words; raises `OptionError` for a name that two of them hold."""
    words: dict[str, object] = {}
    for part in parts:
        for name, value in part.items():
            if name in words:
                raise OptionError(
                    f"{short_name(name)} is given twice: {shortened(as_text(words[name]))} and "
                    f"{shortened(as_text(value))}. Keep one of them"
                )
            words[name] = value
    return words


# --- from the command line to words -----------------------------------------------------------


def read_setting(text: str, scope: str = "method") -> tuple[str, str]:
    """Split NAME=VALUE at the first "="; raises `OptionError` if it has no name or no "="."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise OptionError(f"--set {shortened(text)}: write NAME=VALUE. {_valid_names(scope)}")
    return name, value


def read_settings(settings: Iterable[str]) -> dict[str, object]:
    """Read the values of `--set`, NAME=VALUE each; everything after the first "=" is the value.

    Raises `OptionError` for an unknown scope, a name given twice, and the names in `BARE`, which
    have options such as `--dataset`.
    """
    words: list[dict[str, object]] = []
    for setting in settings:
        name, value = read_setting(setting)
        refuse_bare(name)
        words.append({full_name(name): value})
    return combined(words)


def refuse_bare(name: str) -> None:
    """Raise `OptionError` for a name in `BARE`, which `--set` does not take."""
    if name in BARE:
        raise OptionError(
            f"--set {name}=...: {name!r} is set by another argument of the command (see --help). "
            f"If the method has an option {name!r}, write method.{name}=..."
        )


def read_options(settings: Iterable[str], scope: str) -> dict[str, object]:
    """Read the values of `--set` where they belong to one scope; return values by option.

    With scope "dataset", `ratio=0.1` and `dataset.ratio=0.1` mean the same.
    """
    words: list[dict[str, object]] = []
    for setting in settings:
        name, value = read_setting(setting, scope)
        full = full_name(name, scope)
        if not full.startswith(f"{scope}."):
            raise OptionError(
                f"--set {shortened(setting)}: this command takes options of the {scope} only"
            )
        words.append({full: value})
    return {name.removeprefix(f"{scope}."): value for name, value in combined(words).items()}


def read_sparse(text: str | None) -> dict[str, object]:
    """Read the value of `--sparse`, NAME[:OPTION=VALUE,...], such as "rigl:density=0.05,every=2%".

    NAME may be DISTRIBUTION:NAME, such as "acme:rigl:density=0.05".
    A comma in brackets or double quotes belongs to a value: `exclude=["*.1.weight","head"]`.
    """
    if text is None:
        return {}
    name, _, rest = text.partition(":")
    before, colon, after = rest.partition(":")
    if colon and "=" not in before:
        name, rest = f"{name}:{before}", after
    words: list[dict[str, object]] = [{"sparse": name}]
    for setting in split_commas(rest) if rest else []:
        option, equals, value = setting.partition("=")
        if not (option and equals):
            raise OptionError(
                f"--sparse {shortened(text)}: {shown(setting)} is not OPTION=VALUE. Write it as in "
                "rigl:density=0.05,every=2%"
            )
        words.append({f"sparse.{option}": value})
    return combined(words)


def split_commas(text: str) -> list[str]:
    """Split at commas, except for those in [brackets] or "double quotes"."""
    parts, depth = [""], 0
    for token in re.findall(r'"(?:[^"\\]|\\.)*"|.', text, re.DOTALL):
        if token == '"':
            raise OptionError(f"{shortened(text)}: a double quote is not closed")
        depth += {"[": 1, "]": -1}.get(token, 0)
        if token == "," and not depth:
            parts.append("")
        else:
            parts[-1] += token
    if depth:
        raise OptionError(f"{shortened(text)}: brackets do not match")
    return parts


# --- from words to the arguments of make_spec -------------------------------------------------


def arguments(words: Words, plugins: Plugins, find: Find | None = None) -> dict[str, Any]:
    """Return the keyword arguments of `make_spec` that words stand for; "method" is required.

    `find` resolves the name of the data set; None takes it as it is. Values of options become
    text, so that a number in a suite means the same as after `--set`. A preset of the method stands
    for words of its own, which other words replace.

    Raises `UnknownNameError`, and `OptionError` for an option or preset that the method does not
    have and for options of a sparsifier without a sparsifier.
    """
    words = with_preset(words, plugins)
    keywords: dict[str, Any] = {argument: {} for argument in SCOPES.values()}
    for name, value in words.items():
        scope, dot, option = name.partition(".")
        if dot:
            keywords[SCOPES[scope]][option] = as_text(value)
        else:
            keywords[name] = value
    if find is not None and "dataset" in keywords:
        keywords["dataset"], implied = find(keywords["dataset"])
        keywords["dataset_options"] = {**implied, **keywords["dataset_options"]}
    method = keywords["method"]
    known = option_names(plugins.methods, method)
    for name in keywords["method_options"]:
        if name not in known:
            raise OptionError(
                f"method {method}: no option {shown(name)}."
                f"{suggest(name, known, plugins, keywords)} Options: {listed(known)}. "
                f"See `debiasbench show {method}`"
            )
    if keywords["sparse_options"] and "sparse" not in keywords:
        first = next(iter(keywords["sparse_options"]))
        raise OptionError(
            f'sparse.{first} needs a sparsifier: --sparse NAME, or sparse = "NAME" in a suite'
        )
    return keywords


def with_preset(words: Words, plugins: Plugins) -> Words:
    """Return words in which those of the preset stand for its name.

    Raises `UnknownNameError` for an unknown method, and `OptionError` for an unknown preset.
    """
    if "preset" not in words:
        return words
    method, preset = str(words["method"]), str(words["preset"])
    presets = plugins.methods.find(method)[0].load().presets
    if preset not in presets:
        has = f"Presets: {listed(list(presets))}" if presets else "It has none"
        raise OptionError(
            f"method {method}: no preset {shown(preset)}.{suggestion(preset, presets)} {has}"
        )
    settings = {full_name(name, bare=BARE): v for name, v in presets[preset].items()}
    if "model" in words:  # the options of the preset are those of its own model
        settings = {n: v for n, v in settings.items() if n.partition(".")[0] != "model"}
    known = _dataset_options(words, plugins)
    settings = {n: v for n, v in settings.items() if n.partition(".")[0] != "dataset" or n in known}
    return {**settings, **{name: value for name, value in words.items() if name != "preset"}}


def _dataset_options(words: Words, plugins: Plugins) -> set[str]:
    """Return the full names of the options of a data set; empty for an imported one."""
    try:
        names = option_names(plugins.datasets, str(words.get("dataset", "")))
    except UnknownNameError:
        return set()
    return {f"dataset.{name}" for name in names}


def option_names(registry: Registry[Any], name: str) -> list[str]:
    """Return the options of a data set, model, method or sparsifier, in the order of its fields."""
    cls: Any = registry.find(name)[0].load()
    return [field.name for field in dataclasses.fields(cls)]


def suggest(
    name: str, known: Iterable[str], plugins: Plugins, parts: Mapping[str, Any] | None = None
) -> str:
    """Return ` Did you mean 'x'?` for a name that a method does not have, or an empty string.

    Candidates: the options `known`, the names in `BARE`, settings of the training, and options of
    the parts "dataset", "model" and "sparse" that `parts` names; the model may be the recommended
    one.
    """
    parts = dict(parts or {})
    if "dataset" in parts:
        recommended = plugins.datasets.find(parts["dataset"])[0].load().model
        parts.setdefault("model", recommended)
    meant = {field.name: f"train.{field.name}" for field in dataclasses.fields(Training)}
    for scope, registry in (
        ("sparse", plugins.sparsifiers),
        ("model", plugins.models),
        ("dataset", plugins.datasets),
    ):
        if scope in parts:
            options = option_names(registry, parts[scope])
            meant |= {option: f"{scope}.{option}" for option in options}
    meant |= {word: word for word in (*BARE, *known)}
    close = [name] if name in meant else close_names(name, meant)
    return f" Did you mean {meant[close[0]]!r}?" if close else ""
