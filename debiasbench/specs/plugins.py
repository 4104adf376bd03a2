"""Plugins: builtins and installed distributions are loaded the same way into registries."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import time
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import pluggy

from debiasbench.common.errors import DebiasbenchError, PluginError, suggestion
from debiasbench.common.foreign import contained, explained, is_interrupt
from debiasbench.core import hooks
from debiasbench.core.data import Dataset
from debiasbench.core.method import Method
from debiasbench.core.model import Model
from debiasbench.core.tracker import Tracker
from debiasbench.specs.registry import Origin, Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from debiasbench.sparsity import Updater

BUILTIN = (
    "debiasbench.datasets",
    "debiasbench.models",
    "debiasbench.methods",
    "debiasbench.methods.sparsifiers",
)


SLOW = 3.0  # seconds, from which the import of a plugin is worth a warning


@dataclass(frozen=True)
class Broken:
    """A plugin that registers nothing because of an error in it.

    `reason` continues the name of the plugin. `error`: what the plugin raised.
    """

    name: str
    origin: Origin
    reason: str
    error: BaseException | None = None

    def __str__(self) -> str:
        return f"plugin {self.name!r} of {self.origin} {self.reason}"


class Plugins:
    """Everything that builtins, installed distributions and `extra` register.

    `extra`: plugin objects with their origin, for tests and for plugins that are not installed.
    `installed`: whether installed distributions are loaded, which imports their code.

    An error in a plugin never prevents the use of others. A plugin that cannot be imported,
    misspells a hook or a name, or has a hook without `@hookimpl` is added to `broken`, and none of
    its names is registered. `warnings`: messages about plugins that were loaded: names that several
    distributions register, global settings that a plugin changed, and slow imports.
    """

    def __init__(
        self, extra: Iterable[tuple[object, Origin]] = (), *, installed: bool = True
    ) -> None:
        self.datasets: Registry[Dataset] = Registry("dataset", Dataset)
        self.models: Registry[Model] = Registry("model", Model)
        self.methods: Registry[Method] = Registry("method", Method)
        # as text: importing the class imports torch, which takes seconds and listing does not need
        self.sparsifiers: Registry[Updater] = Registry(
            "sparsifier", "debiasbench.sparsity.updater:Updater"
        )
        self.trackers: Registry[Tracker] = Registry("tracker", Tracker)
        self.broken: list[Broken] = []
        self.warnings: list[str] = []
        builtin = Origin("debiasbench", version("debiasbench"))
        for module in BUILTIN:
            self._register(_names_of(importlib.import_module(module)), builtin)
        if installed and os.environ.get("DEBIASBENCH_PLUGINS") != "0":
            for entry in importlib.metadata.entry_points(group=hooks.PROJECT):
                origin = _origin(entry.dist)
                self._load(entry.name, origin, entry.load, entry.module)
        for plugin, origin in extra:
            self._load(str(origin), origin, partial(_itself, plugin))
        for registry in self.kinds().values():
            registry.unloaded = "; ".join(f"The {b}" for b in self.broken)
            self.warnings += registry.clashes()

    def kinds(self) -> dict[str, Registry[Any]]:
        """Return the registries by their plural names."""
        return {
            "datasets": self.datasets,
            "models": self.models,
            "methods": self.methods,
            "sparsifiers": self.sparsifiers,
            "trackers": self.trackers,
        }

    def files(self) -> dict[str, list[str]]:
        """Return the places of the classes of files that were loaded, by plural kind."""
        kinds = {kind: list(registry.files.values()) for kind, registry in self.kinds().items()}
        return {kind: places for kind, places in kinds.items() if places}

    def load_files(self, places: Mapping[str, Iterable[str]]) -> list[DebiasbenchError]:
        """Run the files of what `files` returned in another process; return what went wrong."""
        problems = []
        for kind, registry in self.kinds().items():
            for place in places.get(kind, ()):
                try:
                    registry.find(place)
                except DebiasbenchError as error:
                    problems.append(error)
        return problems

    def _load(
        self, name: str, origin: Origin, load: Callable[[], object], module: str = ""
    ) -> None:
        """Load a plugin and register its names, or add it to `broken`."""
        begun = time.perf_counter()
        try:
            with contained(f"plugin {name!r} of {origin}", self.warnings.append):
                names = _names_of(load())
        except PluginError as error:
            self.broken.append(Broken(name, origin, str(error), error))
            return
        except BaseException as error:  # plugins are code of others and may raise anything
            if is_interrupt(error):
                raise
            reason = f"did not load: {explained(error, module)}"
            self.broken.append(Broken(name, origin, reason, error))
            return
        seconds = time.perf_counter() - begun
        if seconds > SLOW:
            self.warnings.append(
                f"plugin {name!r} of {origin} took {seconds:.0f} s to import. Register classes as "
                'text, "module:Class", so that they are only imported when they are used'
            )
        try:
            self._register(names, origin)
        except PluginError as error:
            self.broken.append(Broken(name, origin, str(error), error))

    def _register(self, names: Iterable[tuple[str, str, Any]], origin: Origin) -> None:
        """Register all names, or none if one of them is not valid."""
        names, kinds = list(names), self.kinds()
        for i, (kind, name, _) in enumerate(names):
            kinds[kind].check(name, origin)
            if (kind, name) in [other[:2] for other in names[:i]]:
                raise PluginError(f"registers {kinds[kind].kind} {name!r} twice")
        for kind, name, target in names:
            kinds[kind].add(name, target, origin)


def _itself(plugin: object) -> object:
    return plugin


def _names_of(plugin: object) -> list[tuple[str, str, Any]]:
    """Call the hooks of a plugin; return what it registers: kind in plural, name and class.

    Raises `PluginError`, whose message continues the name of the plugin, for hooks that debiasbench
    would never call, and if there is nothing to register.
    """
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    try:
        manager.register(plugin, "plugin")
    except pluggy.PluginValidationError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise PluginError(
            f"registers nothing: a hook takes one argument, register. {reason}"
        ) from error
    _check_hooks(plugin, manager)
    names: list[tuple[str, str, Any]] = []
    for kind in ("datasets", "models", "methods", "sparsifiers", "trackers"):
        hook = getattr(manager.hook, f"debiasbench_register_{kind}")
        hook(register=lambda name, target, kind=kind: names.append((kind, name, target)))
    if not names and not manager.get_hookcallers(plugin):
        raise PluginError(
            "registers nothing: write a function debiasbench_register_methods(register), or "
            f"another hook, with @debiasbench.hookimpl above it. Hooks: {', '.join(HOOKS)}"
        )
    if not names and any(getattr(manager.hook, hook).get_hookimpls() for hook in HOOKS):
        raise PluginError("registers nothing: its hooks do not call register(NAME, CLASS)")
    return names


HOOKS = [name for name in vars(hooks) if name.startswith("debiasbench_")]


def _check_hooks(plugin: object, manager: pluggy.PluginManager) -> None:
    """Raise `PluginError` for a hook that is misspelt, or that is not marked as one."""
    marked = {
        name
        for name, caller in vars(manager.hook).items()
        if not name.startswith("_") and caller.get_hookimpls()
    }
    for name in sorted(marked - set(HOOKS)):
        caller = getattr(manager.hook, name)
        # an optional hook may belong to another version of debiasbench
        if any(not implementation.optionalhook for implementation in caller.get_hookimpls()):
            raise PluginError(
                f"registers nothing: it implements hook {name!r}, which does not exist."
                f"{suggestion(name, HOOKS)} Hooks: {', '.join(HOOKS)}"
            )
    for name in dir(plugin):
        if name.startswith("debiasbench_register") and name not in marked:
            raise PluginError(
                f"registers nothing: {name} is not marked as a hook. Write @hookimpl above it, "
                f"from `from debiasbench import hookimpl`{_correction(name)}"
            )


def _correction(name: str) -> str:
    return "" if name in HOOKS else f".{suggestion(name, HOOKS)} Hooks: {', '.join(HOOKS)}"


def _origin(dist: importlib.metadata.Distribution | None) -> Origin:
    return Origin(dist.name, dist.version) if dist else Origin("unknown", "?")


@cache
def version(distribution: str) -> str:
    """Return the installed version, or "0+unknown" for a package that is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"
