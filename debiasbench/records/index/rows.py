"""The rows of an index: a row for each record, and what many records share once.

What makes records is imported when they are asked for: a folder without changes needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from debiasbench.common.errors import RecordError
from debiasbench.records.index.columns import Damaged
from debiasbench.records.selection import RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from debiasbench.records.checks.labels import Labels
    from debiasbench.records.correct import Correct, Splits
    from debiasbench.records.index.columns import Columns
    from debiasbench.records.record import Outcome, Record
    from debiasbench.records.sharing import Sharing
    from debiasbench.specs.spec import Spec

LISTS = (  # a value for each record
    "name",  # of the file within the folder
    "predictions",  # name of the file, None without
    "id",
    "seed",
    "schema",
    "started",
    "failure",
    "inference",
    "cost",
    "unverified",
    "results",  # digest
    "spec",  # these are numbers
    "task",
    "provenance",
    "supervision",
    "board",
    "labels",  # -1 without predictions
    "group",  # likewise
)
PARTS = ("dataset", "model", "method", "sparse")  # of a spec, each with options
SHARED = ("spec", "task", "provenance", "supervision", "board", "labels")
NO_RESULT = -1  # the epoch of a rule without outcome
_FAULTS = (AttributeError, IndexError, KeyError, TypeError, ValueError)


class RuleColumns:
    """The outcomes of one rule: (R,) epochs and values, and flat hits and bits of all records."""

    def __init__(self, columns: Columns, rule: str) -> None:
        found = columns.json(f"rule_{rule}")
        self.epochs: list[int | None] = found["epochs"]
        self.values: list[float] = found["values"]
        self.hits = columns.array(f"hits_{rule}")
        self.bits = columns.array(f"bits_{rule}")
        self.has = np.array([epoch != NO_RESULT for epoch in self.epochs], dtype=bool)


class _Read(Mapping[str, list[Any]]):
    """Lists of an index by name, each of which is read when it is needed."""

    def __init__(
        self, columns: Columns | None, names: Sequence[str], kind: str, length: int | None = None
    ) -> None:
        self._columns, self._names, self._kind, self._length = columns, names, kind, length
        self._read: dict[str, list[Any]] = {}

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self._read:
            found = [] if self._columns is None else self._columns.json(f"{self._kind}_{name}")
            if not isinstance(found, list) or self._length not in {None, len(found)}:
                raise Damaged
            self._read[name] = found
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Bad(NamedTuple):
    """A file that contradicts itself: its state and that of its predictions, and what is wrong.

    `predictions`: the name of their file, None without. `message`: what follows the path.
    """

    states: tuple[int, ...]
    predictions: str | None
    message: str


class Rows:
    """What an index holds; most of it is read when it is needed.

    `lists`: a list for each of `LISTS`. `shared`: the parts that rows number, as JSON objects.
    `states`: (R, 8) of the file and its predictions. `bad`: files without a row, by name.
    """

    def __init__(self, columns: Columns | None) -> None:
        self._columns = columns
        self.states: NDArray[np.int64] = np.zeros((0, 8), dtype=np.int64)
        self.bad: dict[str, Bad] = {}
        self._rules: dict[str, RuleColumns] = {}
        if columns is not None:
            self.states = columns.array("states")
            if self.states.ndim != 2 or self.states.shape[1] != 8:
                raise Damaged
            bad = columns.json("bad")
            self.bad = {name: Bad(tuple(s), beside, text) for name, s, beside, text in bad}
        self.lists: Mapping[str, list[Any]] = _Read(columns, LISTS, "list", len(self.states))
        self.shared: Mapping[str, list[Any]] = _Read(columns, SHARED, "shared")
        self.of = {name: row for row, name in enumerate(self.lists["name"])}

    @cached_property
    def groups(self) -> list[NDArray[np.integer]]:
        """The arrays of test groups, (N,) each; raises `Damaged`."""
        if self._columns is None:
            return []
        sizes, flat = self._columns.array("group_sizes"), self._columns.array("groups")
        if flat.size != sizes.sum():
            raise Damaged
        return np.split(flat, np.cumsum(sizes)[:-1]) if len(sizes) else []

    @cached_property
    def tuples(self) -> list[tuple[int, ...]]:
        """The states as tuples."""
        return list(map(tuple, self.states.tolist()))

    @classmethod
    def read(cls, columns: Columns, place: str, version: str) -> Rows:
        """Read the rows of a folder; raises `Damaged`, also for those of another version."""
        try:
            about = columns.json("about")
            if (about["version"], about["place"]) != (version, place):
                raise Damaged
            return cls(columns)
        except _FAULTS as error:
            columns.close()
            raise Damaged from error
        except Damaged:
            columns.close()
            raise

    def __len__(self) -> int:
        return len(self.states)

    def agrees(self, row: int, file: str, labels: Labels) -> bool:
        """Say whether the labels beside a record, which has some, are those of its data.

        `file`: the path of the record. `labels`: compares them with those of other records.
        """
        task = self.shared["task"][self.lists["task"][row]]
        texts = self.shared["labels"][self.lists["labels"][row]]
        digests = {name: bytes.fromhex(text) for name, text in texts.items()}
        try:
            return labels.differing_digests(Path(file), task["fingerprint"], digests) is None
        except RecordError:  # reading the file says which reference is damaged
            return False

    def close(self) -> None:
        """Close the file; what was not read yet cannot be read any more."""
        if self._columns is not None:
            self._columns.close()

    def rule(self, rule: str) -> RuleColumns:
        """Return the columns of a selection rule; raises `Damaged`."""
        if self._columns is None:
            raise Damaged
        if rule not in self._rules:
            try:
                self._rules[rule] = RuleColumns(self._columns, rule)
            except _FAULTS as error:
                raise Damaged from error
        return self._rules[rule]

    def sizes(self, rule: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (R,) how many hits, and how many bytes of bits, each record has under a rule."""
        own = self.rule(rule)
        groups = np.array([len(task["group_counts"]["test"]) for task in self.shared["task"]])
        of_bits = np.array([0, *((len(group) + 7) // 8 for group in self.groups)])
        hits = groups[np.array(self.lists["task"], dtype=np.int64)] * own.has
        bits = of_bits[np.array(self.lists["group"], dtype=np.int64) + 1] * own.has
        if hits.sum() != own.hits.size or bits.sum() != own.bits.size:
            raise Damaged
        return hits, bits

    def records(
        self, rows: Sequence[int], select: str | None, sharing: Sharing, splits: Splits
    ) -> list[tuple[Record, Correct | None]]:
        """Make records and what they have correct; see `Index.records`."""
        try:
            return self._records(rows, select, sharing, splits)
        except _FAULTS as error:
            raise Damaged from error

    def _records(
        self, rows: Sequence[int], select: str | None, sharing: Sharing, splits: Splits
    ) -> list[tuple[Record, Correct | None]]:
        if not rows:
            return []
        from debiasbench.core.supervision import Supervision
        from debiasbench.records.correct import Correct
        from debiasbench.records.inference import Inference
        from debiasbench.records.record import Cost, Failure, Provenance, Record, TaskFacts
        from debiasbench.specs.spec import Spec

        own = ("id", "seed", "schema", "failure", "inference", "cost")
        columns = [self.lists[name] for name in own]
        numbers = [self.lists[name] for name in ("spec", "task", "provenance", "supervision")]
        specs = _Lazy(self.shared["spec"], lambda data: sharing.spec(_spec(data)))
        tasks = _Lazy(self.shared["task"], lambda data: sharing.task(TaskFacts(**data)))
        made = _Lazy(self.shared["provenance"], lambda data: sharing.provenance(Provenance(**data)))
        seen = _Lazy(
            self.shared["supervision"], lambda data: sharing.supervision(Supervision(**data))
        )
        groups = _Lazy(self.groups, splits.group)
        outcomes = {
            rule: _Outcomes(self, rule)
            for rule in ([select] if select is not None else RULES)
            if select is not None or any(t["select"] == rule for t in self.shared["task"])
        }
        found = []
        for row in rows:
            id_, seed, schema, failure, inference, cost = [column[row] for column in columns]
            spec, task, provenance, supervision = [column[row] for column in numbers]
            facts, group = tasks[task], self.lists["group"][row]
            rule = select or facts.select
            outcome, bits = outcomes[rule].of(row)
            base: Spec = specs[spec]
            record = Record(
                id_,
                "ok" if failure is None else "failed",
                Spec(
                    base.dataset,
                    base.model,
                    base.method,
                    base.training,
                    seed,
                    base.sparse,
                    base.revisions,
                ),
                seen[supervision],
                facts,
                made[provenance],
                {} if outcome is None else {rule: outcome},
                None if cost is None else Cost(*cost),
                None if failure is None else Failure(**failure),
                inference=None if inference is None else Inference(**inference),
                schema=schema,
            )
            right = None
            if outcome is not None and group >= 0:
                right = Correct(groups[group], bits)
            found.append((record, right))
        return found


class _Lazy:
    """Makes objects of a list when they are needed, and each once."""

    def __init__(self, data: Sequence[Any], make: Callable[[Any], Any]) -> None:
        self._data, self._make = data, make
        self._made: dict[int, Any] = {}

    def __getitem__(self, number: int) -> Any:
        if number not in self._made:
            self._made[number] = self._make(self._data[number])
        return self._made[number]


class _Outcomes:
    """The outcomes of all records under one rule."""

    def __init__(self, rows: Rows, rule: str) -> None:
        from debiasbench.records.record import Outcome, SplitResult
        from debiasbench.records.sharing import NOTHING

        self._make: Callable[[int | None, float, list[int]], Outcome] = lambda epoch, value, hits: (
            Outcome(epoch, value, NOTHING, SplitResult(hits, {}))
        )
        self._columns = rows.rule(rule)
        hits, bits = rows.sizes(rule)
        self._hits, self._bits = [0, *np.cumsum(hits).tolist()], [0, *np.cumsum(bits).tolist()]
        self._packed = np.ascontiguousarray(self._columns.bits).data

    def of(self, row: int) -> tuple[Outcome | None, bytes]:
        """Return the outcome of a record and its bits."""
        own = self._columns
        if own.epochs[row] == NO_RESULT:
            return None, b""
        hits = own.hits[self._hits[row] : self._hits[row + 1]].tolist()
        bits = self._packed[self._bits[row] : self._bits[row + 1]]
        return self._make(own.epochs[row], own.values[row], hits), bytes(bits)


def _spec(data: dict[str, Any]) -> Spec:
    from debiasbench.specs.spec import Choice, Spec

    parts = {name: None if data[name] is None else Choice(**data[name]) for name in PARTS}
    return Spec(seed=0, **{**data, **parts})
