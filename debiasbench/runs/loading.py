"""Load each data set of many runs once, before the first of them begins."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import DebiasbenchError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec


@dataclass
class Unloadable:
    """A data set that cannot be loaded, and the titles of the runs that need it."""

    dataset: str
    error: DebiasbenchError
    runs: list[str] = field(default_factory=list)


def unloadable(plugins: Plugins, specs: Mapping[str, Spec], root: Path) -> list[Unloadable]:
    """Return the data sets that cannot be loaded; those with equal messages are one.

    `specs`: by title. Decoded data sets are kept in the cache of `root`, so that loading them again
    is fast.
    """
    from debiasbench.runs.session import load_task

    errors: dict[str, DebiasbenchError | None] = {}  # by name and options of the data set
    found: dict[tuple[str, str], Unloadable] = {}
    for title, spec in specs.items():
        key = canonical(asdict(spec.dataset))
        if key not in errors:
            try:
                load_task(plugins, spec.dataset, root)
                errors[key] = None
            except DebiasbenchError as error:
                errors[key] = error
        if (problem := errors[key]) is not None:
            name = spec.dataset.name
            same = found.setdefault((name, str(problem)), Unloadable(name, problem))
            same.runs.append(title)
    return list(found.values())
