"""`debiasbench results show`: everything that a record says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import debug_option, results_option, say
from debiasbench.cli.parsing import Command

if TYPE_CHECKING:
    from debiasbench.records.record import Record


@click.command(cls=Command)
@click.argument("record", metavar="ID|FILE")
@results_option
@debug_option
def show(record: str, results: Path) -> None:
    """Describe a record.

    The record is given by its file, by its id, or by the first digits of its id. The description
    has the command that repeats the run, the accuracies by group and selection rule, cost, machine
    and code, files, and whether the record agrees with its predictions.
    """
    from debiasbench.cli.report import report
    from debiasbench.records.held import one
    from debiasbench.records.store import Run
    from debiasbench.specs.command import command

    path, found = one(results, record)
    parts = [
        report(Run(found, path, fresh=True)),
        f"To run it again:\n{command(found.spec)}",
        _facts(found),
        _cost(found),
        _files(path, found),
        _verification(path, found),
    ]
    say("\n\n".join(filter(None, parts)))


def _facts(record: Record) -> str:
    made, seen = record.provenance, record.supervision
    facts = {
        "Id": record.id,
        "Labels": f"train={seen.train}, val={seen.val}",
        "Data": record.task.fingerprint,
        "Made": f"{made.started} on {made.hardware} ({made.device})",
        "Deterministic": "yes" if made.deterministic else "no",
        "Versions": ", ".join(f"{name} {version}" for name, version in made.versions.items()),
        "Plugins": ", ".join(f"{kind}: {origin}" for kind, origin in made.plugins.items()),
        "Commit": made.git,
        "Code": made.code,
        "Arithmetic": ", ".join(f"{name}={value}" for name, value in made.arithmetic.items()),
        "Revisions": ", ".join(f"{k} {v}" for k, v in (record.spec.revisions or {}).items()),
    }
    if record.failure is not None:
        failure = record.failure
        facts["Failure"] = (
            f"{failure.kind} in stage {failure.stage!r} at step {failure.step}: {failure.message}"
        )
    return "\n".join(f"{name}: {value}" for name, value in facts.items() if value)


def _cost(record: Record) -> str:
    cost = record.cost
    if cost is None:
        return ""
    facts = {
        "Seconds of training": f"{cost.training_seconds:,.1f} ({cost.wall_seconds:,.1f} in all)",
        "FLOPs to train": f"{cost.training_flops:.4g}",
        "FLOPs to predict a sample": f"{cost.inference_flops:.4g}",
        "Active parameters": f"{cost.active_parameters:,} of {cost.parameters:,}",
        "Density": f"{cost.density:.4g}",
        "Peak memory": f"{cost.peak_memory_bytes / 1e6:,.0f} MB",
    }
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def _files(path: Path, record: Record) -> str:
    from debiasbench.records.held import files, weight

    lines = [f"{file} ({weight([file]) / 1e3:,.1f} kB)" for file in files(path, record)]
    return "\n".join(["Files:", *lines])


def _verification(path: Path, record: Record) -> str:
    from debiasbench.records.verify import examine

    found = examine(path, record)
    if found.messages:
        return "\n".join(["The record contradicts itself:", *found.messages])
    if found.unverified:
        return f"Not verified: {found.unverified}"
    if record.status == "failed":
        return "Verified: the record agrees with itself; a failed run has no predictions"
    return "Verified: hits follow from the predictions, and accuracies from the hits"
