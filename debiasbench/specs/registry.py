"""Registries: names and the classes they stand for, imported only when used."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from debiasbench.common.errors import OptionError, PluginError, UnknownNameError
from debiasbench.common.foreign import contained, explained, is_interrupt
from debiasbench.common.names import NAME
from debiasbench.common.options import check_is_options
from debiasbench.common.wording import joined
from debiasbench.core.settings import check_search
from debiasbench.specs import source_file

C = TypeVar("C")

BUILTIN = "debiasbench"


@dataclass(frozen=True)
class Origin:
    """The distribution that an entry comes from."""

    distribution: str
    version: str

    @property
    def prefix(self) -> str:
        """The name of the distribution as it stands before the colon of `DISTRIBUTION:name`."""
        return normalized(self.distribution)

    @property
    def builtin(self) -> bool:
        """Whether this is debiasbench itself."""
        return self.distribution == BUILTIN

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

    @property
    def full_name(self) -> str:
        """The name with its distribution, such as "acme:mixup"."""
        return f"{self.origin.prefix}:{self.name}"

    def load(self) -> type[C]:
        """Import the class and check that it is a valid class of its kind.

        Raises `PluginError` naming the distribution.
        """
        try:
            base = _import(self.base) if isinstance(self.base, str) else self.base
            with contained(str(self)) if self._is_foreign_code() else nullcontext():
                cls: Any = _import(self.target) if isinstance(self.target, str) else self.target
            if not (isinstance(cls, type) and issubclass(cls, base)):
                raise TypeError(f"{cls!r} is not a subclass of {base.__name__}")
            if inspect.isabstract(cls):
                missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
                raise TypeError(f"{cls.__name__} lacks {missing}")
            check_is_options(cls)
            if self.kind == "dataset":
                check_search(getattr(cls, "search", {}))
        except OptionError as error:
            raise PluginError(f"{self} is unusable: {error}") from error
        except BaseException as error:  # importing a plugin may raise anything
            if is_interrupt(error):
                raise
            module = self.target.partition(":")[0] if isinstance(self.target, str) else ""
            raise PluginError(
                f"{self} did not load: {explained(error, module)}. "
                f"Fix or uninstall {self.origin.distribution}"
            ) from error
        return cast("type[C]", cls)

    def _is_foreign_code(self) -> bool:
        """Return whether `load` executes code of a plugin, as its first import does."""
        if self.origin.builtin or not isinstance(self.target, str):
            return False
        return self.target.partition(":")[0] not in sys.modules

    def summary(self) -> str:
        """Return the first line of the docstring of the class, without importing the class."""
        doc = _docstring(self.target) if isinstance(self.target, str) else self.target.__doc__
        return (doc or "").strip().partition("\n")[0]

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.origin}"


class Registry(Mapping[str, Entry[C]]):
    """The entries of one kind by name, in the order of registration.

    Several distributions may register a name. People then have to write `DISTRIBUTION:name`, which
    is always allowed. As a mapping, and in specs, a name that is also a builtin one means the
    builtin entry: installing a plugin changes no existing spec.

    `find` also takes a class of a Python file, such as "./my.py:Mixup", which is not registered,
    and `name_of` takes the class itself.
    """

    def __init__(self, kind: str, base: type[C] | str) -> None:
        self.kind, self.base = kind, base
        self.unloaded = ""  # plugins that did not load, for the message about an unknown name
        self._entries: dict[str, list[Entry[C]]] = {}  # by name; several are ambiguous
        self._of_files: dict[str, Entry[C]] = {}  # by name in specs
        self.files: dict[str, str] = {}  # of those that `find` has loaded: their absolute places

    def check(self, name: object, origin: Origin) -> None:
        """Raise `PluginError` if `origin` cannot register `name`."""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise PluginError(
                f"registers {self.kind} {name!r}: names are lower-case letters, digits, '_', '.' "
                "and '-', and begin with a letter or a digit"
            )
        if any(entry.origin.prefix == origin.prefix for entry in self._entries.get(name, ())):
            raise PluginError(f"registers {self.kind} {name!r} twice")

    def add(self, name: str, target: type[C] | str, origin: Origin) -> None:
        """Register `target`; raises `PluginError` as `check` does."""
        self.check(name, origin)
        entry = Entry(self.kind, name, target, origin, self.base)
        self._entries.setdefault(name, []).append(entry)

    def find(self, name: str) -> tuple[Entry[C], dict[str, object]]:
        """Return the entry that a person means by `name`, and the options that `name` itself fixes.

        "timm:vit_tiny" stands for the family "timm:" with the option {"name": "vit_tiny"}. Raises
        `UnknownNameError`, and `PluginError` for a name that several distributions register.
        """
        entries, fixed = self._named(name, files=True)
        return self._only(entries), fixed

    def find_in_spec(self, name: str) -> tuple[Entry[C], dict[str, object]]:
        """Return what `find` does; a name that is also a builtin one means the builtin entry.

        A spec may be of a stranger, so a name that is the path of a file is unknown: no file is
        run. Classes of files that `find` has loaded are known by their names in specs.
        """
        entries, fixed = self._named(name)
        return entries[0] if entries[0].origin.builtin else self._only(entries), fixed

    def _only(self, entries: list[Entry[C]]) -> Entry[C]:
        if len(entries) > 1:
            raise PluginError(f"{self._clash(entries)}. Write {self._choices(entries)}")
        return entries[0]

    def name_in_spec(self, name: str) -> str:
        """Return the name that stands in a spec for what a person wrote, which has no prefix for
        builtin entries.

        Raises what `find` does.
        """
        entry, _ = self.find(name)
        if entry.name in self._of_files:
            return entry.name
        prefix, colon, rest = name.partition(":")
        if not colon or name in self._entries or prefix + ":" in self._entries:
            return name
        return rest if entry.origin.builtin else f"{entry.origin.prefix}:{rest}"

    def name_of(self, target: object) -> str:
        """Return a name unchanged, and for a class the name under which `find` returns it.

        A class that no plugin registers is made known. Raises `OptionError`.
        """
        if isinstance(target, str):
            return target
        base: Any = _import(self.base) if isinstance(self.base, str) else self.base
        if not (isinstance(target, type) and issubclass(target, base)):
            raise OptionError(
                f"{self.kind}={target!r}: give a name, or a class that derives from "
                f"debiasbench.{base.__name__}; its options are given beside it"
            )
        place = f"{target.__module__}:{target.__qualname__}"
        for entry in (entry for entries in self._entries.values() for entry in entries):
            if entry.target in (target, place):
                return entry.name if len(self._entries[entry.name]) == 1 else entry.full_name
        return self._unregistered(source_file.of_class(target)).name

    def is_ambiguous(self, name: str) -> bool:
        """Return whether several distributions register a name; False for an unknown one."""
        try:
            return len(self._named(name)[0]) > 1
        except UnknownNameError:
            return False

    def clashes(self) -> list[str]:
        """Return a message for each name that several distributions register."""
        several = [entries for entries in self._entries.values() if len(entries) > 1]
        return [
            f"{self._clash(entries)}. To use it, write {self._choices(entries)}"
            for entries in several
        ]

    def display_names(self) -> list[str]:
        """Return the names as people write them: "timm:NAME" for the family "timm:"."""
        return [name + "NAME" if name.endswith(":") else name for name in self]

    def _named(self, name: str, *, files: bool = False) -> tuple[list[Entry[C]], dict[str, object]]:
        """Return the entries of a name, at least one, and the options that the name fixes.

        `files`: whether the name may be the path of a file, which is then run.
        """
        if name in self._of_files:
            return [self._of_files[name]], {}
        if files and source_file.is_written(name):
            return [self._of_file(name)], {}
        family, colon, rest = name.partition(":")
        if colon and rest and family + ":" in self._entries:
            return self._entries[family + ":"], {"name": rest}
        if name in self._entries and not name.endswith(":"):
            return self._entries[name], {}
        own = {
            plain: [entry for entry in entries if entry.origin.prefix == normalized(family)]
            for plain, entries in self._entries.items()
        }
        inner, inner_colon, member = rest.partition(":")
        if inner_colon and member and own.get(inner + ":"):
            return own[inner + ":"], {"name": member}
        if own.get(rest) and not rest.endswith(":"):
            return own[rest], {}
        hint = self.unloaded
        if place := source_file.place_in_spec(name):
            hint = (
                f"It is a class of a file, which `debiasbench run --{self.kind} FOLDER/{place}` "
                "loads. To use its records in other ways, register it in a package"
            )
        raise UnknownNameError(self.kind, name, self.display_names(), hint=hint)

    def _of_file(self, name: str) -> Entry[C]:
        """Return an entry for a class of a Python file; raises `OptionError`."""
        base: Any = _import(self.base) if isinstance(self.base, str) else self.base
        found = source_file.load(name, self.kind, base)
        self.files[found.name] = found.place
        return self._unregistered(found)

    def _unregistered(self, found: source_file.FileClass) -> Entry[C]:
        origin = Origin(found.file, found.digest)
        entry = Entry(self.kind, found.name, cast("type[C]", found.cls), origin, self.base)
        return self._of_files.setdefault(found.name, entry)

    def _clash(self, entries: list[Entry[C]]) -> str:
        origins = [str(entry.origin) for entry in entries]
        return (
            f"{'Two' if len(origins) == 2 else len(origins)} distributions register {self.kind} "
            f"{entries[0].name!r}: {joined(origins, 'and')}"
        )

    def _choices(self, entries: list[Entry[C]]) -> str:
        return " or ".join(entry.full_name for entry in entries)

    def __getitem__(self, name: str) -> Entry[C]:
        every = [entry for entries in self._entries.values() for entry in entries]
        exact = self._entries.get(name, []) + [e for e in every if e.full_name == name]
        return exact[0] if len(exact) == 1 else self.find_in_spec(name)[0]

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self._entries.get(name) or self._named(name))
        except UnknownNameError:
            return False

    def __iter__(self) -> Iterator[str]:
        for name, entries in self._entries.items():
            yield from [name] if len(entries) == 1 else [entry.full_name for entry in entries]

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))


def normalized(distribution: str) -> str:
    """Return the name of a distribution in the one spelling that package indexes use."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


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
