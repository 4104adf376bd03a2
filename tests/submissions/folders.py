"""Folders of submissions for tests: five seeds of a toy method, and published records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from debiasbench.specs.spec import Choice, Spec
from debiasbench.submissions.about import template
from debiasbench.submissions.check import Result
from tests.records.test_record import SPEC, make_record
from tests.records.training import seeds, trained

ORIGIN = {"distribution": "acme", "version": "1.0"}
VALUES = {
    "who": "A. Stranger",
    "contact": "a@example.org",
    "licence": "CC0-1.0",
    "claims": "authors",
    "source": "https://example.org/acme",
    "sha256": "0" * 64,
    **ORIGIN,
}
MINE = replace(SPEC, method=Choice("acme:mine"))


def provenance(**changes: Any) -> Any:
    """The provenance of a record whose method is of acme 1.0."""
    made = make_record().provenance
    plugins = {**made.plugins, "method": "acme 1.0"}
    return replace(made, **{"plugins": plugins, **changes})


def submission(folder: Path, spec: Spec = MINE, number: int = 5, **changes: Any) -> Path:
    """Write a submission without faults; return its folder."""
    place = folder / "submissions" / "mine"
    seeds(place / "records", number, spec, provenance=provenance(), **changes)
    write_about(place)
    return place


def write_about(place: Path, **changes: str) -> None:
    """Write `submission.toml`."""
    (place / "submission.toml").write_text(template({**VALUES, **changes}))


def published(folder: Path, number: int = 3) -> Path:
    """Write published records of another method on the same data; return their folder."""
    place = folder / "leaderboard" / "records"
    for seed in range(number):
        spec = replace(SPEC, seed=seed)
        trained(place, spec, ((9, 2, 3, 10), (10, 4, 6, 9), (10, 3, 5, 9)), noise=seed)
    return place


def texts(result: Result) -> str:
    """Write all findings, a line for each."""
    return "\n".join(
        f"{file} {finding}" for file, found in result.findings.items() for finding in found
    )
