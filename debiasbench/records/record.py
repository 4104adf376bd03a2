"""What came of a run: `Record`, plain data that JSON can hold."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from debiasbench.common.canonical import Strict
from debiasbench.common.errors import RecordError
from debiasbench.core.supervision import Supervision
from debiasbench.records.metrics import METRICS, GroupCounts
from debiasbench.records.selection import RULES
from debiasbench.specs.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import TypeAdapter

SCHEMA = 1
_FLAT_LIST = re.compile(r"\[\s+([^\[\]{}\"]+?)\s+\]")


@dataclass(frozen=True)
class TaskFacts(Strict):
    """What a reader must know of the data to recompute every metric."""

    classes: list[str]
    biases: list[str]
    aligned: list[list[bool]]  # (C, B)
    metric: str
    select: str
    group_counts: dict[str, list[int]]  # split -> (G,), group = y * len(biases) + bias
    fingerprint: str


@dataclass(frozen=True)
class SplitResult(Strict):
    """Correct samples per group (G,), and the accuracies that follow from them."""

    hits: list[int]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Outcome(Strict):
    """The result under one selection rule."""

    epoch: int | None  # None: the rule had no epochs to choose from, the result is as it is
    value: float  # the rule's validation metric at that epoch; NaN for `last`
    val: SplitResult
    test: SplitResult


@dataclass(frozen=True)
class Cost(Strict):
    """What the run took. FLOPs count a multiply-add as two and leave out every evaluation."""

    wall_seconds: float
    training_seconds: float
    images_per_second: float  # in training stages, validation included
    peak_memory_bytes: int
    parameters: int  # of the network that predicts
    active_parameters: int  # those that sparsity leaves
    density: float  # active fraction of the convolution and linear weights
    inference_flops: float  # per sample, at the realised density
    training_flops: float  # all stages together
    stages: list[dict[str, Any]]


@dataclass(frozen=True)
class Failure(Strict):
    """Why and where a run ended early."""

    kind: str
    message: str
    stage: str
    step: int
    last_loss: float | None


@dataclass(frozen=True)
class Provenance(Strict):
    """Where and with what a run was made."""

    plugins: dict[str, str]  # dataset, model, method -> distribution and version
    versions: dict[str, str]
    device: str
    hardware: str
    deterministic: bool
    git: str | None  # commit of the debiasbench checkout, "+changes" if it had any
    started: str  # UTC, ISO 8601
    arithmetic: dict[str, Any] = field(default_factory=dict)  # precision and so on; processes


@dataclass(frozen=True)
class Record(Strict):
    """A run, whole: enough to recompute every metric and to run it again.

    `predictions`: name and SHA-256 of the file of predicted classes, None if failed; see
    `debiasbench.records.store.read_predictions`. `weights`: the same of the network's weights, if
    they were kept, and the selection rule that chose them.
    """

    id: str
    status: Literal["ok", "failed"]
    spec: Spec
    supervision: Supervision  # what the method declared
    task: TaskFacts
    provenance: Provenance
    outcomes: dict[str, Outcome] = field(default_factory=dict)  # by selection rule
    cost: Cost | None = None
    failure: Failure | None = None
    predictions: dict[str, str] | None = None
    weights: dict[str, str] | None = None
    schema: int = SCHEMA


def test_counts(record: Record, outcome: Outcome) -> GroupCounts:
    """Return what an outcome of the record got right in each group of the test split."""
    totals = record.task.group_counts
    return GroupCounts.of(outcome.test.hits, totals["test"], record.task.aligned, totals["train"])


def to_json(record: Record) -> str:
    """Write a record as JSON; NaN and infinities become null, and `nulls` says which they were."""
    data = asdict(record)
    nulls = {".".join(map(str, path)): str(value) for path, value in _non_finite(data)}
    data["nulls"] = nulls
    text = json.dumps(_without_non_finite(data), indent=1, sort_keys=True, allow_nan=False)
    # a list of numbers on one line: a hundred groups are a line, not a page
    return _FLAT_LIST.sub(lambda m: "[" + " ".join(m[1].split()) + "]", text) + "\n"


def from_json(text: str) -> Record:
    """Read a record; raises `RecordError` saying what is wrong with it."""
    from pydantic import ValidationError

    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RecordError(f"is no JSON ({error})") from error
    if not isinstance(data, dict) or "schema" not in data or "spec" not in data:
        raise RecordError("is no debiasbench record (no schema, no spec)")
    if data["schema"] != SCHEMA:
        raise RecordError(
            f"has record schema {data['schema']!r}; this debiasbench reads schema {SCHEMA}"
        )
    try:
        for path, value in data.pop("nulls", {}).items():
            _put(data, path.split("."), float(value))
        record = _reader().validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecordError(f"is damaged at {where}: {first['msg'].lower()}") from error
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise RecordError(f"is damaged in `nulls` ({error})") from error
    if (known := record.spec.unchecked_id) != record.id:
        raise RecordError(f"was changed by hand: its spec hashes to {known}, not its id")
    for contradiction in _contradictions(record):
        raise RecordError(f"contradicts itself: {contradiction}")
    return record


def _contradictions(record: Record) -> Iterator[str]:
    """Say what no run could have written, so that readers need not look again."""
    task = record.task
    groups = len(task.classes) * len(task.biases)
    if [len(row) for row in task.aligned] != [len(task.biases)] * len(task.classes):
        yield "aligned is not classes by biases"
    if task.metric not in METRICS or task.select not in RULES:
        yield f"metric {task.metric!r} or rule {task.select!r} is unknown to this debiasbench"
    for split in ("train", "val", "test"):
        counts = task.group_counts.get(split, [])
        if len(counts) != groups or any(n < 0 for n in counts) or sum(counts) == 0:
            yield f"group counts of {split} are not {groups} numbers of samples"
    for rule, outcome in record.outcomes.items():
        if rule not in RULES:
            yield f"rule {rule!r} is unknown to this debiasbench"
        for split, result in (("val", outcome.val), ("test", outcome.test)):
            counts = task.group_counts.get(split, [])
            if len(result.hits) != len(counts) or any(
                not 0 <= hit <= count for hit, count in zip(result.hits, counts, strict=True)
            ):
                yield f"hits of {rule} in {split} do not fit the group counts"


@cache
def _reader() -> TypeAdapter[Record]:
    from pydantic import TypeAdapter

    return TypeAdapter(Record)


def _non_finite(value: object, path: tuple[str | int, ...] = ()) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _non_finite(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _non_finite(item, (*path, i))
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, value


def _without_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_non_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _put(data: Any, path: list[str], value: float) -> None:
    *parents, last = path
    for key in parents:
        data = data[int(key)] if isinstance(data, list) else data[key]
    data[int(last) if isinstance(data, list) else last] = value
