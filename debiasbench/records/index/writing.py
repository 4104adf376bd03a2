"""The columns of a new index: of records whose files have not changed, and of those just read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.records.index.columns import text
from debiasbench.records.index.rows import LISTS, NO_RESULT, SHARED
from debiasbench.records.selection import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from debiasbench.records.correct import Correct
    from debiasbench.records.index.rows import Bad, Rows
    from debiasbench.records.record import Record


class Fresh:
    """Columns of records that were read: those of `Rows`, with hits and bits by rule.

    `shared`: JSON of the parts that records share -> their numbers, which begin after the rows that
    are known.
    """

    def __init__(self, rows: Rows) -> None:
        self.lists: dict[str, list[Any]] = {name: [] for name in LISTS}
        self.states: list[tuple[int, ...]] = []
        self.rules: dict[str, list[tuple[int | None, float]]] = {rule: [] for rule in RULES}
        self.hits: dict[str, list[NDArray[Any]]] = {rule: [] for rule in RULES}
        self.bits: dict[str, list[bytes]] = {rule: [] for rule in RULES}
        self._rows = rows
        self.shared: dict[str, dict[str, int]] = {}
        self.groups: list[NDArray[np.integer]] = []
        self._groups: dict[int, int] = {}
        self.bad: dict[str, Bad] = {}

    def __len__(self) -> int:
        return len(self.states)

    def add(
        self,
        name: str,
        states: tuple[int, ...],
        record: Record,
        correct: dict[str, Correct],
        predictions: str | None,
        unverified: bool,
        labels: Mapping[str, bytes],
    ) -> None:
        """Add a record; `correct`: by rule, empty without predictions; `labels`: their digests."""
        from debiasbench.records.sharing import stages

        spec = _fields(record.spec)
        del spec["seed"]
        made = _fields(record.provenance) | {"started": ""}
        cost = record.cost
        values = {
            "name": name,
            "predictions": predictions,
            "id": record.id,
            "seed": record.spec.seed,
            "schema": record.schema,
            "started": record.provenance.started,
            "failure": None if record.failure is None else asdict(record.failure),
            "inference": None if record.inference is None else asdict(record.inference),
            "cost": None
            if cost is None
            else [*(v for k, v in vars(cost).items() if k != "stages"), stages(record)],
            "unverified": unverified,
            "results": results(record),
            "spec": self._number("spec", spec),
            "task": self._number("task", _fields(record.task)),
            "provenance": self._number("provenance", made),
            "supervision": self._number("supervision", _fields(record.supervision)),
            "board": self._number("board", board(record)),
            "labels": self._number("labels", {k: v.hex() for k, v in labels.items()})
            if labels
            else -1,
            "group": self._group(next(iter(correct.values())).group) if correct else -1,
        }
        for key, value in values.items():
            self.lists[key].append(value)
        self.states.append(states)
        hits: dict[int | None, NDArray[Any]] = {}  # rules that keep an epoch share them
        for rule in RULES:
            outcome = record.outcomes.get(rule)
            if outcome is None:
                self.rules[rule].append((NO_RESULT, 0.0))
                continue
            if outcome.epoch not in hits:
                hits[outcome.epoch] = _small(np.array(outcome.test.hits, dtype=np.int64))
            self.rules[rule].append((outcome.epoch, outcome.value))
            self.hits[rule].append(hits[outcome.epoch])
            if rule in correct:
                self.bits[rule].append(correct[rule].bits)

    def _number(self, part: str, data: dict[str, Any]) -> int:
        if part not in self.shared:
            self.shared[part] = {json.dumps(d): i for i, d in enumerate(self._rows.shared[part])}
        known = self.shared[part]
        return known.setdefault(json.dumps(data, default=_fields), len(known))

    def _group(self, group: NDArray[np.integer]) -> int:
        """Return the number of an array, of which equal ones are one object."""
        if id(group) not in self._groups:
            self._groups[id(group)] = len(self._rows.groups) + len(self.groups)
            self.groups.append(group)
        return self._groups[id(group)]


def board(record: Record) -> dict[str, Any]:
    """Return what decides which records are compared, and by which metric and rule."""
    spec, task = record.spec, record.task
    parts = {"dataset": _fields(spec.dataset), "model": _fields(spec.model)}
    facts = {name: getattr(task, name) for name in ("fingerprint", "metric", "select")}
    return parts | facts


def members(
    place: str,
    version: str,
    rows: Rows,
    used: Sequence[int],
    fresh: Fresh,
    bad: Mapping[str, Bad],
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays of an index of those rows that are used, and of those just read.

    `bad`: the files without a row. Those of one rule after the other, so that they need not be in
    memory together. Raises `Damaged` if the rows cannot be read.
    """
    kept = sorted(set(used))
    about = {"version": version, "place": place, "records": len(kept) + len(fresh)}
    yield "about", text(about)
    lists = {name: [*map(rows.lists[name].__getitem__, kept), *fresh.lists[name]] for name in LISTS}
    shared = {}
    for part in SHARED:
        all_of = rows.shared[part]
        if part in fresh.shared:
            all_of = list(map(json.loads, fresh.shared[part]))
        lists[part], shared[part] = _renumbered(lists[part], all_of)
    lists["group"], groups = _renumbered(lists["group"], [*rows.groups, *fresh.groups])
    for name in LISTS:
        yield f"list_{name}", text(lists[name])
    for part in SHARED:
        yield f"shared_{part}", text(shared[part])
    new = np.array(fresh.states, dtype=np.int64).reshape(-1, 8)
    yield "states", np.concatenate([rows.states[kept], new])
    yield "bad", text([[name, *one] for name, one in bad.items()])
    yield "group_sizes", np.array([len(group) for group in groups], dtype=np.int64)
    yield "groups", np.concatenate([np.zeros(0, np.uint8), *groups])
    mask = np.zeros(len(rows), dtype=bool)
    mask[kept] = True
    for rule in RULES:
        yield from _of_rule(rule, rows, mask, fresh)


def _of_rule(
    rule: str, rows: Rows, mask: NDArray[np.bool_], fresh: Fresh
) -> Iterator[tuple[str, NDArray[Any]]]:
    epochs = [epoch for epoch, _ in fresh.rules[rule]]
    values = [value for _, value in fresh.rules[rule]]
    hits = [np.zeros(0, np.uint8), *fresh.hits[rule]]
    bits = [np.frombuffer(b"".join(fresh.bits[rule]), dtype=np.uint8)]
    if mask.any():
        own = rows.rule(rule)
        of_hits, of_bits = rows.sizes(rule)
        kept = np.flatnonzero(mask).tolist()
        epochs = [*map(own.epochs.__getitem__, kept), *epochs]
        values = [*map(own.values.__getitem__, kept), *values]
        hits.insert(0, own.hits[np.repeat(mask, of_hits)])
        bits.insert(0, own.bits[np.repeat(mask, of_bits)])
    yield f"rule_{rule}", text({"epochs": epochs, "values": values})
    yield f"hits_{rule}", np.concatenate(hits)
    yield f"bits_{rule}", np.concatenate(bits)


def _renumbered(numbers: list[int], parts: Sequence[Any]) -> tuple[list[int], list[Any]]:
    """Leave out the parts that no row has; return the new numbers and the parts. -1 stays."""
    used = sorted(set(numbers) - {-1})
    new = {old: i for i, old in enumerate(used)} | {-1: -1}
    return [new[number] for number in numbers], [parts[old] for old in used]


def results(record: Record) -> str:
    """Return a digest of the status and all hits on the test split."""
    hits = [[rule, o.test.hits] for rule, o in sorted(record.outcomes.items())]
    return hashlib.sha256(json.dumps([record.status, hits]).encode()).hexdigest()[:16]


def _fields(part: Any) -> dict[str, Any]:
    """Return the fields of a part of a record; `asdict` would copy all that they hold."""
    return {field.name: getattr(part, field.name) for field in fields(part)}


def _small(numbers: NDArray[np.int64]) -> NDArray[Any]:
    """Return whole numbers from 0 on in the smallest type that holds them."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
