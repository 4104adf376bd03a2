"""Revisions of code: a spec names those above 1, so that new results get another id."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from debiasbench.common.errors import PluginError, UnknownNameError
from debiasbench.specs.parts import parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec

RULES_REVISION = 2
"""Of the selection rules. 1: the earliest of equal epochs. 2: see `records.selection.Tracker`."""


def renewed(plugins: Plugins, spec: Spec) -> Spec:
    """Return a spec with the revisions of the installed code, whatever it had.

    A part that is not installed keeps its revision.
    """
    revisions = {"rules": RULES_REVISION}
    for part, (registry, choice) in parts(plugins, spec).items():
        try:
            code = registry.find_in_spec(choice.name)[0].load()
        except (UnknownNameError, PluginError):  # whoever runs the spec will be told
            revisions[part] = revision(spec.revisions, part)
        else:
            revisions[part] = getattr(code, "revision", 1)
    above = {part: revision for part, revision in revisions.items() if revision > 1}
    return spec if spec.revisions == above else replace(spec, revisions=above)


def changed(before: Spec, after: Spec) -> list[str]:
    """Say which revisions of two specs differ, such as "selection rules: 1 before, 2 now"."""
    old, new = before.revisions or {}, after.revisions or {}
    return [
        f"{_NAMES.get(part, part)}: {old.get(part, 1)} before, {new.get(part, 1)} now"
        for part in sorted({*old, *new})
        if old.get(part, 1) != new.get(part, 1)
    ]


def revision(revisions: Mapping[str, int] | None, part: str) -> int:
    """Return the revision of a part of a spec, or of "rules"."""
    return (revisions or {}).get(part, 1)


_NAMES = {"rules": "selection rules", "dataset": "data set", "sparse": "sparse training"}
