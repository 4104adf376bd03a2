"""Plugins: builtins and installed distributions are loaded the same way into four registries."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pluggy

from debiasbench.common.errors import PluginError, suggestion
from debiasbench.core import hooks
from debiasbench.core.data import Dataset
from debiasbench.core.method import Method
from debiasbench.core.model import Model
from debiasbench.specs.registry import ADVICE, Origin, Registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from debiasbench.sparsity import Updater

BUILTIN = (
    "debiasbench.datasets",
    "debiasbench.models",
    "debiasbench.methods",
    "debiasbench.methods.sparsifiers",
)


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be loaded, and why."""

    name: str
    origin: Origin
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.name!r} of {self.origin} did not load: {self.reason}"


class Plugins:
    """Everything that builtins, installed distributions and `extra` register.

    `extra`: plugin objects with their origin, for tests and for plugins that are not installed.
    Raises `PluginError` for a misspelt hook and for a name registered twice. A plugin that fails in
    any other way is added to `broken`, and none of its names is registered.
    """

    def __init__(self, extra: Iterable[tuple[object, Origin]] = ()) -> None:
        self.datasets: Registry[Dataset] = Registry("dataset", Dataset)
        self.models: Registry[Model] = Registry("model", Model)
        self.methods: Registry[Method] = Registry("method", Method)
        # as text: importing the class imports torch, which takes seconds and listing does not need
        self.sparsifiers: Registry[Updater] = Registry(
            "sparsifier", "debiasbench.sparsity.updater:Updater"
        )
        self.broken: list[Broken] = []
        builtin = Origin("debiasbench", version("debiasbench"))
        for module in BUILTIN:
            self._register(module, importlib.import_module(module), builtin)
        if os.environ.get("DEBIASBENCH_PLUGINS") != "0":
            for entry in importlib.metadata.entry_points(group=hooks.PROJECT):
                self._load(entry)
        for plugin, origin in extra:
            self._register(str(origin), plugin, origin)
        if self.broken:
            for registry in self.kinds().values():
                registry.unloaded = "; ".join(f"The {b}" for b in self.broken)

    def kinds(self) -> dict[str, Registry[Any]]:
        """Return the four registries by their plural names."""
        return {
            "datasets": self.datasets,
            "models": self.models,
            "methods": self.methods,
            "sparsifiers": self.sparsifiers,
        }

    def _load(self, entry: importlib.metadata.EntryPoint) -> None:
        dist = entry.dist
        origin = Origin(dist.name, dist.version) if dist else Origin("unknown", "?")
        try:
            plugin = entry.load()
        except (Exception, SystemExit) as error:  # importing a plugin may raise anything
            self._mark_broken(entry.name, origin, error)
        else:
            self._register(entry.name, plugin, origin)

    def _register(self, name: str, plugin: object, origin: Origin) -> None:
        """Call the hooks of one plugin by itself, so that a name clash names this plugin."""
        manager = pluggy.PluginManager(hooks.PROJECT)
        manager.add_hookspecs(hooks)
        registered: list[tuple[str, str, Any]] = []
        try:
            manager.register(plugin, name)
            misspelt = _unknown_hook(manager)
            if not misspelt:
                for kind in self.kinds():
                    hook = getattr(manager.hook, f"debiasbench_register_{kind}")
                    hook(register=lambda n, target, kind=kind: registered.append((kind, n, target)))
        except (Exception, SystemExit) as error:  # so may calling its hooks
            self._mark_broken(name, origin, error)
            return
        if misspelt:
            known = [n for n in vars(hooks) if n.startswith("debiasbench_")]
            raise PluginError(
                f"{origin} implements hook {misspelt!r}, which does not exist."
                f"{suggestion(misspelt, known)} Hooks: {', '.join(known)}. "
                f"{ADVICE.format(origin.distribution)}"
            )
        for kind, n, target in registered:
            self.kinds()[kind].add(n, target, origin)

    def _mark_broken(self, name: str, origin: Origin, error: BaseException) -> None:
        self.broken.append(Broken(name, origin, f"{type(error).__name__}: {error}"))


@cache
def version(distribution: str) -> str:
    """Return the installed version, or "0+unknown" for a package that is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


def _unknown_hook(manager: pluggy.PluginManager) -> str | None:
    """Return the name of a hook that is implemented but not specified, unless it is optional."""
    for name, caller in vars(manager.hook).items():
        if name.startswith("_") or caller.has_spec():
            continue
        if any(not implementation.optionalhook for implementation in caller.get_hookimpls()):
            return name
    return None
