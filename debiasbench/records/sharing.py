"""Equal parts of many records as one object, so that 100,000 records fit into memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from debiasbench.records.record import SplitResult

if TYPE_CHECKING:
    from debiasbench.core.supervision import Supervision
    from debiasbench.records.record import Provenance, Record, TaskFacts
    from debiasbench.specs.spec import Spec

NOTHING = SplitResult([], {})
FEW = 8  # tasks that are compared with a new one; forged records may have many


class Sharing:
    """Remembers parts of records, and returns the first of equal ones."""

    def __init__(self) -> None:
        self._specs: dict[str, Spec] = {}
        self._provenances: dict[str, Provenance] = {}
        self._supervisions: dict[Supervision, Supervision] = {}
        self._tasks: dict[str, list[TaskFacts]] = {}  # by fingerprint

    def task(self, task: TaskFacts) -> TaskFacts:
        """Return the first task that equals this one."""
        known = self._tasks.setdefault(task.fingerprint, [])
        for first in known:
            if first == task:
                return first
        if len(known) < FEW:
            known.append(task)
        return task

    def for_tables(self, record: Record, rule: str) -> Record:
        """Return a record with what tables need of one selection rule, and without the rest."""
        outcome = record.outcomes.get(rule)
        kept = {}
        if outcome is not None:
            # metrics follow from the hits
            kept[rule] = replace(outcome, val=NOTHING, test=SplitResult(outcome.test.hits, {}))
        return replace(
            record,
            spec=self.spec(record.spec),
            supervision=self.supervision(record.supervision),
            provenance=self.provenance(record.provenance),
            outcomes=kept,
            cost=None if record.cost is None else replace(record.cost, stages=stages(record)),
            predictions=None,
            weights=None,
            curves=[],
        )

    def spec(self, spec: Spec) -> Spec:
        """Return a spec whose parts are those of the first one that differs in the seed only."""
        # the text of a spec tells numbers of different types apart, which are equal: 1 and True
        first = self._specs.setdefault(repr(replace(spec, seed=0)), spec)
        return replace(first, seed=spec.seed)

    def supervision(self, supervision: Supervision) -> Supervision:
        """Return the first supervision that equals this one."""
        return self._supervisions.setdefault(supervision, supervision)

    def provenance(self, made: Provenance) -> Provenance:
        """Return the first provenance that differs in the time only, without the time."""
        timeless = replace(made, started="")
        return self._provenances.setdefault(repr(timeless), timeless)


def stages(record: Record) -> list[dict[str, Any]]:
    """Return what an inference cost, in each stage before it; nothing without an inference."""
    if record.cost is None or record.inference is None:
        return []
    before = record.cost.stages[: record.inference.stages]
    return [{name: stage.get(name) for name in ("seconds", "flops")} for stage in before]
