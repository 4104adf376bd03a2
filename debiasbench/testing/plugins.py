"""Check what a plugin registers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import PluginError
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.registry import BUILTIN as DEBIASBENCH
from debiasbench.specs.registry import Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.specs.registry import Entry, Registry


def check_plugin(plugin: object, **names: Sequence[str]) -> None:
    """Check that a plugin registers names, and that the class of each name loads.

    `plugin`: what its entry point names, usually a module. `names`: by kind (`methods`, `datasets`,
    `models`, `sparsifiers`, `trackers`), names that it must register. The hooks must change no
    global setting of Python, NumPy or torch.
    """
    origin = Origin("this-plugin", "0")
    plugins = Plugins([(plugin, origin)])
    for broken in plugins.broken:
        assert broken.origin != origin, f"The {broken}"
    for warning in plugins.warnings:
        assert not warning.startswith(f"plugin '{origin}'"), f"The {warning}"
    for kind, expected in names.items():
        missing = [
            name for name in expected if f"{origin.prefix}:{name}" not in plugins.kinds()[kind]
        ]
        assert not missing, f"The plugin does not register {', '.join(missing)} among its {kind}"
    for registry in plugins.kinds().values():
        for entry in registry.values():
            if entry.origin == origin:
                _check_entry(entry, registry)


def _check_entry(entry: Entry[Any], registry: Registry[Any]) -> None:
    assert f"{DEBIASBENCH}:{entry.name}" not in registry, (
        f"{entry.kind} {entry.name!r} has the name of a builtin {entry.kind}"
    )
    try:
        entry.load()
    except PluginError as error:
        raise AssertionError(str(error)) from error
    assert entry.summary(), (
        f"The class of {entry.kind} {entry.name!r} has no docstring, whose first line "
        "`debiasbench list` shows"
    )
