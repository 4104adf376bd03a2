"""The page of a record: what was run, what came out under each rule, and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from debiasbench.leaderboard import cells
from debiasbench.leaderboard.site.heat import heat
from debiasbench.leaderboard.site.table import Cell, Heading, Line, Link, Section, Table
from debiasbench.records.metrics import METRICS
from debiasbench.records.record import test_counts

if TYPE_CHECKING:
    from debiasbench.leaderboard.site.heat import Heat
    from debiasbench.records.record import Record

Facts = list[tuple[str, str]]


def outcome_table(record: Record) -> Table:
    """Lay out every metric on the test split under every selection rule."""
    return Table(
        name="outcomes",
        caption="Accuracies on the test split under each selection rule, in percent",
        headings=[
            Heading("rule", "selection rule", 1),
            Heading("epoch", "epoch", 1),
            Heading("value", "its validation metric %", -1),
            *(Heading(name, f"{cells.words(name)} %", -1) for name in METRICS),
        ],
        sections=[
            Section(
                "",
                [
                    Line(
                        Link(rule),
                        [
                            Cell(
                                "—" if outcome.epoch is None else str(outcome.epoch),
                                float("nan") if outcome.epoch is None else outcome.epoch,
                            ),
                            Cell(cells.percent(outcome.value), outcome.value),
                            *(
                                Cell(cells.percent(value), value)
                                for value in (
                                    outcome.test.metrics.get(name, float("nan")) for name in METRICS
                                )
                            ),
                        ],
                    )
                    for rule, outcome in sorted(record.outcomes.items())
                ],
            )
        ],
    )


def heats(record: Record) -> list[Heat]:
    """Draw the groups of the test split, once for rules that keep the same hits."""
    rules: dict[tuple[int, ...], list[str]] = {}
    for rule, outcome in sorted(record.outcomes.items()):
        rules.setdefault(tuple(outcome.test.hits), []).append(rule)
    return [
        heat(", ".join(names), record.task, test_counts(record, record.outcomes[names[0]]))
        for names in rules.values()
    ]


def provenance(record: Record) -> Facts:
    """Name the machine, the software and the code that made a record."""
    made = record.provenance
    facts = {
        "started": made.started,
        "machine": made.hardware,
        "device": made.device,
        "deterministic": "yes" if made.deterministic else "no",
        "commit": made.git or "not known",
        **{f"{kind} from": origin for kind, origin in sorted(made.plugins.items())},
        **{f"version of {name}": version for name, version in sorted(made.versions.items())},
        **{f"arithmetic: {name}": _shown(v) for name, v in sorted(made.arithmetic.items())},
        "SHA-256 of the source code": made.code or "not known",
        **{f"SHA-256 of the {kind}'s code": s for kind, s in sorted(made.plugin_code.items())},
        "data fingerprint": record.task.fingerprint,
        "revisions of code": ", ".join(
            f"{part} {number}" for part, number in sorted((record.spec.revisions or {}).items())
        )
        or "1 each",
        "schema of the record": str(record.schema),
    }
    return list(facts.items())


def costs(record: Record) -> Facts:
    """Write what the run needed; empty for a run that failed."""
    cost = record.cost
    if cost is None:
        return []
    return [
        ("seconds in all", f"{cost.wall_seconds:,.1f}"),
        ("seconds of training", f"{cost.training_seconds:,.1f}"),
        ("images per second", f"{cost.images_per_second:,.0f}"),
        ("largest memory", f"{cost.peak_memory_bytes / 1e6:,.0f} MB"),
        ("parameters", f"{cost.parameters:,}"),
        ("active parameters", f"{cost.active_parameters:,}"),
        ("density", f"{cost.density:.4g}"),
        ("MFLOPs to predict a sample", f"{cost.inference_flops / 1e6:,.4g}"),
        ("TFLOPs to train", f"{cost.training_flops / 1e12:,.4g}"),
    ]


def stage_table(record: Record) -> Table | None:
    """Lay out the stages of the training; None without any."""
    stages = [] if record.cost is None else record.cost.stages
    if not stages:
        return None
    names = list(dict.fromkeys(key for stage in stages for key in stage if key != "name"))
    return Table(
        name="stages",
        caption="Stages of the training",
        headings=[
            Heading("stage", "stage"),
            *(Heading(f"c{i}", name.replace("_", " ")) for i, name in enumerate(names)),
        ],
        sections=[
            Section(
                "",
                [
                    Line(
                        Link(_shown(stage.get("name", number))),
                        [Cell(_shown(stage.get(name))) for name in names],
                    )
                    for number, stage in enumerate(stages, 1)
                ],
            )
        ],
    )


def _shown(value: Any) -> str:
    """Write a value of a record, which may be anything that JSON holds."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "":
        return "—"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
