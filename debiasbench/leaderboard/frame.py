"""Records as a data frame: a row for each run and selection rule, with every metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.common.canonical import canonical
from debiasbench.records.metrics import METRICS, accuracies_of
from debiasbench.records.selection import RULES, USES_GROUPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pandas as pd

    from debiasbench.records.record import Record
    from debiasbench.specs.spec import Choice, Spec

COSTS = (
    "density",
    "parameters",
    "active_parameters",
    "inference_flops",
    "training_flops",
    "training_seconds",
)


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return a row for each record and selection rule.

    Accuracies are in [0, 1] and computed from the hits in each group; they are NaN where a run or
    a rule has no result. `failure` is the reason why a run has none, `missing` why a rule has none.
    `train`, `val`: the supervision of the row; `val` includes what the selection rule reads.
    """
    import pandas as pd

    texts = Texts()
    records = list(records)
    each = [runs_of(records, rule, texts) for rule in RULES]
    rows = pd.DataFrame([run for runs in zip(*each, strict=True) for run in runs])
    missing = [name for name in (*METRICS, *COSTS) if name not in rows]  # if all runs failed
    return rows.reindex(columns=[*rows.columns, *missing])


class Texts:
    """Remembers the canonical text of dicts and the labels of choices, which records may share."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, str]] = {}  # by identity; the object stays alive

    def canonical(self, value: dict[str, Any]) -> str:
        """Return `canonical(value)`."""
        return self._text(value, canonical)

    def label(self, choice: Choice) -> str:
        """Return `label(choice)`."""
        return self._text(choice, label)

    def _text(self, value: Any, write: Callable[[Any], str]) -> str:
        if id(value) not in self._known:
            self._known[id(value)] = value, write(value)
        return self._known[id(value)][1]


def runs_of(records: Sequence[Record], rule: str, texts: Texts) -> list[dict[str, Any]]:
    """Return the row of `frame` for each record and a selection rule.

    Metrics are absent if the run or the rule has no result, and costs if they are not known.
    """
    runs = [_run(record, rule, texts) for record in records]
    known: dict[int, list[int]] = {}  # places of records of one task, by its identity
    for place, record in enumerate(records):
        if record.failure is None and rule in record.outcomes:
            known.setdefault(id(record.task), []).append(place)
    for places in known.values():
        counts = records[places[0]].task.splits["test"]
        hits = np.array([records[i].outcomes[rule].test.hits for i in places], dtype=np.int64)
        of = accuracies_of(hits.reshape(-1, *counts.totals.shape), counts)
        for place, metrics in zip(places, of, strict=True):
            runs[place] |= metrics
    for run, record in zip(runs, records, strict=True):
        if record.cost is not None:
            run |= {name: getattr(record.cost, name) for name in COSTS}
    return runs


def _run(record: Record, rule: str, texts: Texts) -> dict[str, Any]:
    """Return a row without metrics and costs."""
    spec, task = record.spec, record.task
    outcome, made_by = record.outcomes.get(rule), record.provenance.plugins
    row: dict[str, Any] = {
        "id": record.id,
        "dataset": texts.label(spec.dataset),
        "data": task.fingerprint,
        "model": texts.label(spec.model),
        "method": spec.method.name,
        "sparse": spec.sparse.name if spec.sparse else "",
        "sparse_options": texts.canonical(spec.sparse.options) if spec.sparse else "{}",
        "made_by": "; ".join(
            origin for kind, origin in made_by.items() if kind in {"method", "sparse"}
        ),
        "options": texts.canonical(spec.method.options),
        "training": texts.canonical(spec.training),
        "revisions": texts.canonical(_revisions(spec, rule)),
        "rules": (spec.revisions or {}).get("rules", 1),
        "seed": spec.seed,
        "rule": rule,
        "train": record.supervision.train,
        "val": _val_use(record.supervision.val, rule),
        "failure": None,
        "missing": None,
        "epoch": outcome.epoch if outcome else None,
    }
    if record.failure is not None:
        row["failure"] = f"{record.failure.kind} at step {record.failure.step}"
    elif outcome is None:
        row["missing"] = f"{rule} is undefined on the validation split"
    return row


def label(choice: Choice) -> str:
    """Write a choice with its options: "digits ratio=0.05 split_seed=0"."""
    return " ".join([choice.name, *(f"{k}={plain(v)}" for k, v in sorted(choice.options.items()))])


def plain(value: object) -> str:
    """Write an option's value as it is typed on a command line."""
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else " ".join(str(value).split())


def _revisions(spec: Spec, rule: str) -> dict[str, int]:
    """Return the revisions that decide an outcome; no revision of the rules has changed `last`."""
    revisions = spec.revisions or {}
    kept = ("rules",) if rule == "last" else ()
    return {part: number for part, number in revisions.items() if part not in kept}


def _val_use(declared: str, rule: str) -> str:
    return "select" if declared in {"none", "inputs"} and rule in USES_GROUPS else declared
