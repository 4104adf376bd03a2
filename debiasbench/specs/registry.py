"""Registries: names and the classes they stand for, imported only when used."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from debiasbench.common.errors import OptionError, PluginError, UnknownNameError
from debiasbench.common.names import NAME
from debiasbench.common.options import check_is_options

C = TypeVar("C")

ADVICE = "Fix or uninstall {}. DEBIASBENCH_PLUGINS=0 runs with builtins only"


@dataclass(frozen=True)
class Origin:
    """The distribution that an entry comes from."""

    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Entry(Generic[C]):
    """One registered name and its class, given as "module:Class" to import it only when needed."""

    kind: str  # "method", "dataset", "model" or "sparsifier"
    name: str
    target: type[C] | str
    origin: Origin
    base: type[C] | str

    def load(self) -> type[C]:
        """Import the class and check that it is a valid class of its kind.

        Raises `PluginError` naming the distribution.
        """
        try:
            cls: Any = _import(self.target) if isinstance(self.target, str) else self.target
            base = _import(self.base) if isinstance(self.base, str) else self.base
            if not (isinstance(cls, type) and issubclass(cls, base)):
                raise TypeError(f"{cls!r} is not a subclass of {base.__name__}")
            if inspect.isabstract(cls):
                missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
                raise TypeError(f"{cls.__name__} lacks {missing}")
            check_is_options(cls)
        except OptionError as error:
            raise PluginError(f"{self} is unusable: {error}") from error
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{self} did not load: {type(error).__name__}: {error}. "
                f"Fix or uninstall {self.origin.distribution}"
            ) from error
        return cast("type[C]", cls)

    def summary(self) -> str:
        """Return the first line of the docstring of the class, without importing the class."""
        doc = _docstring(self.target) if isinstance(self.target, str) else self.target.__doc__
        return (doc or "").strip().partition("\n")[0]

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.origin}"


class Registry(Mapping[str, Entry[C]]):
    """The entries of one kind by name, in the order of registration."""

    def __init__(self, kind: str, base: type[C] | str) -> None:
        self.kind, self.base = kind, base
        self.unloaded = ""  # plugins that did not load, for the message about an unknown name
        self._entries: dict[str, Entry[C]] = {}

    def add(self, name: str, target: type[C] | str, origin: Origin) -> None:
        """Register `target`; raises `PluginError` for an invalid name and for a name in use."""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise PluginError(
                f"{origin} registers {self.kind} {name!r}: names are lower-case letters, digits, "
                "'_', '.' and '-', and begin with a letter or a digit. "
                f"{ADVICE.format(origin.distribution)}"
            )
        if name in self._entries:
            raise PluginError(
                f"Two distributions register {self.kind} {name!r}: "
                f"{self._entries[name].origin} and {origin}. {ADVICE.format('one of them')}"
            )
        self._entries[name] = Entry(self.kind, name, target, origin, self.base)

    def find(self, name: str) -> tuple[Entry[C], dict[str, object]]:
        """Return the entry for `name` and the options that the name itself fixes.

        "timm:vit_tiny" stands for the family "timm:" with the option {"name": "vit_tiny"}. Raises
        `UnknownNameError`.
        """
        family, colon, rest = name.partition(":")
        if colon and rest and family + ":" in self._entries:
            return self._entries[family + ":"], {"name": rest}
        if name.endswith(":") or name not in self._entries:
            raise UnknownNameError(self.kind, name, self.display_names(), hint=self.unloaded)
        return self._entries[name], {}

    def display_names(self) -> list[str]:
        """Return the names as people write them: "timm:NAME" for the family "timm:"."""
        return [name + "NAME" if name.endswith(":") else name for name in self._entries]

    def __getitem__(self, name: str) -> Entry[C]:
        return self._entries[name] if name in self._entries else self.find(name)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _import(target: str) -> type:
    module, colon, name = target.partition(":")
    if not colon:
        raise ValueError(f'target {target!r} is not of the form "module:Class"')
    cls: type = getattr(importlib.import_module(module), name)
    return cls


def _docstring(target: str) -> str | None:
    module, _, name = target.partition(":")
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)  # for a submodule, it would import the parent packages
        if spec is None or spec.origin is None:
            return None
        file = Path(spec.origin).parent.joinpath(*rest) if rest else Path(spec.origin)
        if rest:
            file = file / "__init__.py" if file.is_dir() else file.with_name(f"{file.name}.py")
        tree = ast.parse(file.read_text("utf-8"))
    except (OSError, ValueError, SyntaxError):
        return None  # `load` reports what is wrong when the entry is used
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return ast.get_docstring(node)
    return None
