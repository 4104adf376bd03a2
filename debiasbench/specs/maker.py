"""Many specs from words: parts that several specs share are resolved once."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from debiasbench.common.canonical import canonical
from debiasbench.specs.resolve import check_seed, make_spec
from debiasbench.specs.spec import Choice, Spec
from debiasbench.specs.words import arguments, with_preset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.core.settings import AnyPrecision
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.words import Find, Words

PARTS = {  # part of a spec -> the words that decide it: a name, or the beginning of names
    "dataset": ("dataset", "dataset."),
    "model": ("model", "model.", "dataset"),  # a data set recommends a model and training settings
    "method": ("method", "method."),
    "training": ("train.", "dataset"),
    "sparse": ("sparse", "sparse."),
    "revisions": ("dataset", "model", "method", "sparse"),
}


class Maker:
    """Makes the specs of a grid.

    `find` resolves the names of data sets; None takes them as they are. `precision`: see
    `make_spec`.
    """

    def __init__(
        self, plugins: Plugins, find: Find | None = None, precision: AnyPrecision = "fp32"
    ) -> None:
        self._plugins, self._find, self._precision = plugins, find, precision
        self._resolved: dict[object, Any] = {}  # words that decide a part -> the part
        self._equal: dict[tuple[str, str], Any] = {}  # part and content -> the first such part
        self._made: set[tuple[int, ...]] = set()

    def new(self, words: Words) -> Spec | None:
        """Return the spec that words stand for; None if an equal one was returned before.

        Raises `UnknownNameError`, `OptionError`, and `PluginError` for a plugin that cannot be
        used.
        """
        words = with_preset(words, self._plugins)
        keys = _keys(words)
        if any(key not in self._resolved for key in keys.values()):
            self._resolve(words, keys)
        parts = {part: self._resolved[key] for part, key in keys.items()}
        seed: Any = words.get("seed", 0)
        check_seed(seed)
        content = (*map(id, parts.values()), seed)
        if content in self._made:
            return None
        self._made.add(content)
        return Spec(seed=seed, **parts)

    def _resolve(self, words: Words, keys: Mapping[str, object]) -> None:
        """Make the spec of words, and keep its parts."""
        keywords = arguments(words, self._plugins, self._find)
        spec = make_spec(self._plugins, **keywords, precision=self._precision)
        for part, key in keys.items():
            self._resolved[key] = self._shared(part, getattr(spec, part))

    def _shared(self, part: str, value: Any) -> Any:
        """Return the first of all equal values, so that equal parts are the same object."""
        content = canonical(asdict(value) if isinstance(value, Choice) else value)
        return self._equal.setdefault((part, content), value)


def _keys(words: Words) -> dict[str, tuple[object, ...]]:
    """Return for each part of a spec the words that decide it."""
    keys: dict[str, list[object]] = {part: [part] for part in PARTS}
    for name, value in words.items():
        word = (name, repr(value))
        for part in _decided(name):
            keys[part].append(word)
    return {part: tuple(key) for part, key in keys.items()}


@cache
def _decided(name: str) -> list[str]:
    """Return the parts of a spec that the word of this name decides."""
    scope, dot, _ = name.partition(".")
    return [part for part, words in PARTS.items() if scope + dot in words]
