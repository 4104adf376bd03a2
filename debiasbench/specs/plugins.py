"""Who offers what: builtins and strangers are loaded by one path into four registries."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from debiasbench.common.errors import PluginError, suggestion
from debiasbench.core import hooks
from debiasbench.core.data import Dataset
from debiasbench.core.method import Method
from debiasbench.core.model import Model
from debiasbench.specs.registry import WAY_OUT, Origin, Registry

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
    """Everything that is registered, from builtins, installed distributions and `extra`.

    `extra`: plugin objects with their origin, for tests and for use without installing.
    Raises `PluginError` for a misspelt hook and for a name registered twice. A plugin that
    fails otherwise is put into `broken`, and none of its names is registered.
    """

    def __init__(self, extra: Iterable[tuple[object, Origin]] = ()) -> None:
        self.datasets: Registry[Dataset] = Registry("dataset", Dataset)
        self.models: Registry[Model] = Registry("model", Model)
        self.methods: Registry[Method] = Registry("method", Method)
        # by name: its module imports torch, which listing shall not
        self.sparsifiers: Registry[Updater] = Registry(
            "sparsifier", "debiasbench.sparsity.updater:Updater"
        )
        self.broken: list[Broken] = []
        own = Origin("debiasbench", version("debiasbench"))
        for module in BUILTIN:
            self._take(module, importlib.import_module(module), own)
        if os.environ.get("DEBIASBENCH_PLUGINS") != "0":
            for entry in importlib.metadata.entry_points(group=hooks.PROJECT):
                self._load(entry)
        for plugin, origin in extra:
            self._take(str(origin), plugin, origin)
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
        except (Exception, SystemExit) as error:  # a stranger's import may raise anything
            self._give_up(entry.name, origin, error)
        else:
            self._take(entry.name, plugin, origin)

    def _take(self, name: str, plugin: object, origin: Origin) -> None:
        """Call the hooks of one plugin alone, so that a clash blames the newcomer."""
        manager = pluggy.PluginManager(hooks.PROJECT)
        manager.add_hookspecs(hooks)
        offers: list[tuple[str, str, Any]] = []
        try:
            manager.register(plugin, name)
            misspelt = _unknown_hook(manager)
            if not misspelt:
                for kind in self.kinds():
                    hook = getattr(manager.hook, f"debiasbench_register_{kind}")
                    hook(register=lambda n, target, kind=kind: offers.append((kind, n, target)))
        except (Exception, SystemExit) as error:  # and so may its hook
            self._give_up(name, origin, error)
            return
        if misspelt:
            specs = [n for n in vars(hooks) if n.startswith("debiasbench_")]
            raise PluginError(
                f"{origin} implements hook {misspelt!r}, which does not exist."
                f"{suggestion(misspelt, specs)} Hooks: {', '.join(specs)}. "
                f"{WAY_OUT.format(origin.distribution)}"
            )
        for kind, offered, target in offers:
            self.kinds()[kind].add(offered, target, origin)

    def _give_up(self, name: str, origin: Origin, error: BaseException) -> None:
        self.broken.append(Broken(name, origin, f"{type(error).__name__}: {error}"))


def version(distribution: str) -> str:
    """Return the installed version, "0+unknown" where the package runs uninstalled."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


def _unknown_hook(manager: pluggy.PluginManager) -> str | None:
    """Return the name of a hook that is implemented, not specified, and not optional."""
    for name, caller in vars(manager.hook).items():
        if name.startswith("_") or caller.has_spec():
            continue
        if any(not implementation.optionalhook for implementation in caller.get_hookimpls()):
            return name
    return None
