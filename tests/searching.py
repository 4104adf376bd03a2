"""A whole search for tests: trials, the winner, and the runs that report it, in one session."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from debiasbench import Session
from debiasbench.records.search import Search
from debiasbench.runs.searching import selected
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.search import Plan, plan

QUICK = {"dataset": "toy", "train.epochs": 2}


def searched(
    plugins: Plugins,
    results: Path,
    method: str = "erm",
    trials: int = 4,
    seeds: Iterable[int] = (0, 1),
    rule: str | None = None,
    **words: Any,
) -> tuple[Plan, Search]:
    """Search a method on the toy data set; return the plan and the search."""
    made = plan(plugins, {"method": method, **QUICK, **words}, trials)
    with Session(plugins, results=results, data_root=results, device="cpu") as session:
        for spec in made.trials:
            session.trial(spec)
        search, winner = selected(results, made, rule)
        for spec in made.reported(winner, list(seeds)).values():
            session.run(spec)
    return made, search
