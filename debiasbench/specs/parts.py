"""The parts of a spec that name something registered, each with its registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.registry import Registry
    from debiasbench.specs.spec import Choice, Spec


def parts(plugins: Plugins, spec: Spec) -> dict[str, tuple[Registry[Any], Choice]]:
    """Return for each part of a spec its registry and the choice from it.

    The parts are dataset, model, method, and sparse if there is a sparsifier.
    """
    every: dict[str, tuple[Registry[Any], Choice | None]] = {
        "dataset": (plugins.datasets, spec.dataset),
        "model": (plugins.models, spec.model),
        "method": (plugins.methods, spec.method),
        "sparse": (plugins.sparsifiers, spec.sparse),
    }
    return {kind: (r, choice) for kind, (r, choice) in every.items() if choice is not None}
