"""The result of a run: `Record`, plain data that JSON can hold."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from debiasbench.common.canonical import Strict
from debiasbench.common.errors import RecordError
from debiasbench.core.supervision import Supervision
from debiasbench.records.inference import Inference
from debiasbench.records.metrics import METRICS, GroupCounts
from debiasbench.records.plain import fault, refused
from debiasbench.records.selection import RULES
from debiasbench.records.upgrade import SCHEMA, upgraded
from debiasbench.specs.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydantic import TypeAdapter

R = TypeVar("R", bound="Result")

MOST_SAMPLES = 1 << 53  # of a split; larger counts are damage, and no float holds them
MEASURED = (  # the costs that tables add up
    "training_seconds",
    "parameters",
    "active_parameters",
    "density",
    "inference_flops",
    "training_flops",
)

# JSON texts contain no line breaks
_FLAT_LIST = re.compile(r"\[\n\s*([^\[\]{}\"]+?)\n\s*\]")


@dataclass(frozen=True)
class TaskFacts(Strict):
    """The facts about the data that are needed to recompute every metric.

    C classes, B biases, and G = C * B groups; group = y * B + bias.
    """

    classes: list[str]
    biases: list[str]
    aligned: list[list[bool]]  # (C, B)
    metric: str
    select: str
    group_counts: dict[str, list[int]]  # split -> samples in each group, (G,)
    fingerprint: str

    @cached_property
    def splits(self) -> dict[str, GroupCounts]:
        """The counts of each split, with all samples as hits."""
        of, train = self.group_counts, self.group_counts["train"]
        return {name: GroupCounts.of(n, n, self.aligned, train) for name, n in of.items()}


@dataclass(frozen=True)
class SplitResult(Strict):
    """Correct samples in each group, (G,), and the accuracies that follow from them."""

    hits: list[int]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Selected(Strict):
    """The result under one selection rule, on the validation split."""

    epoch: int | None  # None: the method returned weights without epochs to choose from
    value: float  # the rule's validation metric at that epoch; NaN for `last`
    val: SplitResult


@dataclass(frozen=True)
class Outcome(Selected):
    """The result under one selection rule, on the validation and the test split."""

    test: SplitResult


@dataclass(frozen=True)
class Cost(Strict):
    """What the run needed. A multiply-add counts as two FLOPs; evaluations are not counted."""

    wall_seconds: float
    training_seconds: float
    images_per_second: float  # in training stages, including validation
    peak_memory_bytes: int
    parameters: int  # of the network that makes the predictions
    active_parameters: int  # parameters that are not masked
    density: float  # active fraction of the convolution and linear weights
    inference_flops: float  # per sample, at this density
    training_flops: float  # of all stages
    stages: list[dict[str, Any]]  # a `StageCost` each


@dataclass(frozen=True)
class Curves(Strict):
    """The epochs of a stage: name -> a value for each epoch, to six significant digits.

    "loss" is the mean training loss. If the stage read validation, "val_loss" is the mean
    cross-entropy on the validation split, and "val_unbiased" and so on are its accuracies.
    """

    stage: str
    values: dict[str, list[float]]


@dataclass(frozen=True)
class Failure(Strict):
    """Why and where training failed."""

    kind: str
    message: str
    stage: str
    step: int
    last_loss: float | None


@dataclass(frozen=True)
class Provenance(Strict):
    """The machine, the software and the code that made a record."""

    plugins: dict[str, str]  # dataset, model, method, sparse -> distribution and version
    versions: dict[str, str]
    device: str
    hardware: str
    deterministic: bool
    git: str | None  # commit of the debiasbench checkout, with "+changes" if it had changes
    started: str  # UTC, ISO 8601
    # precision, compilation, processes, threads
    arithmetic: dict[str, Any] = field(default_factory=dict)
    code: str | None = None  # SHA-256 of the source code; None in records older than schema 2
    # kind -> SHA-256 of the source code of its plugin; only kinds that are not builtin
    plugin_code: dict[str, str] = field(default_factory=dict)
    # options of the method and training settings that were not the default of the method and the
    # recommendation of the data set, by full name; None in records of versions that did not keep it
    chosen: list[str] | None = None


@dataclass(frozen=True)
class Result(Strict):
    """What a record and a trial have in common; `judged`: the splits with predictions.

    `predictions`: name and SHA-256 of the file of predicted classes, None if training failed; see
    `read_predictions`. `curves`: empty in records of versions that did not keep them.
    """

    judged: ClassVar[tuple[str, ...]] = ("val",)

    id: str
    status: Literal["ok", "failed"]
    spec: Spec
    supervision: Supervision  # as the method declared it
    task: TaskFacts
    provenance: Provenance
    outcomes: Mapping[str, Selected] = field(default_factory=dict)  # by selection rule
    cost: Cost | None = None
    failure: Failure | None = None
    predictions: dict[str, str] | None = None
    curves: list[Curves] = field(default_factory=list)  # of each stage


@dataclass(frozen=True)
class Record(Result):
    """A complete run: enough to recompute every metric and to run it again.

    `weights`: name and SHA-256 of the file of the network's weights, and the selection rule that
    chose them; None if they were not kept. `inference`: None if the method inferred nothing of the
    training samples, and in records of versions that did not keep it.
    """

    judged: ClassVar[tuple[str, ...]] = ("val", "test")

    outcomes: dict[str, Outcome] = field(default_factory=dict)  # by selection rule
    weights: dict[str, str] | None = None
    inference: Inference | None = None
    schema: int = SCHEMA


def test_counts(record: Record, outcome: Outcome) -> GroupCounts:
    """Return the counts of an outcome in each group of the test split."""
    totals = record.task.group_counts
    return GroupCounts.of(outcome.test.hits, totals["test"], record.task.aligned, totals["train"])


def to_json(record: Result) -> str:
    """Write a record or a trial as JSON.

    NaN and infinities become null; `nulls` lists their values.
    """
    data = asdict(record)
    nulls = {".".join(map(str, path)): str(value) for path, value in _non_finite(data)}
    data["nulls"] = nulls
    text = json.dumps(_without_non_finite(data), indent=1, sort_keys=True, allow_nan=False)
    # lists of numbers stand on one line, or a hundred groups would fill a page
    return _FLAT_LIST.sub(lambda m: "[" + " ".join(m[1].split()) + "]", text) + "\n"


def from_json(text: str) -> Record:
    """Read a record of any known schema, upgraded to the current one.

    Raises `RecordError` with the reason; its message continues the name of a file.
    """
    record = result_from_json(text, Record, upgraded)
    for contradiction in _impossible_inference(record):
        raise RecordError(f"contradicts itself: {contradiction}")
    return record


def result_from_json(
    text: str, cls: type[R], upgrade: Callable[[dict[str, Any]], dict[str, Any]]
) -> R:
    """Read a record or a trial, whose JSON object `upgrade` brings to the current schema.

    Raises `RecordError` with the reason; its message continues the name of a file.
    """
    from pydantic import ValidationError

    data = _parsed(text)
    try:
        for path, value in data.pop("nulls", {}).items():
            _put(data, path.split("."), float(value))
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise RecordError(f"is damaged in `nulls` ({error})") from error
    for part in ("spec", "cost", "provenance", "failure"):  # these hold values of any type
        if wrong := fault(data.get(part), finite=part == "spec"):
            raise RecordError(f"is damaged in {part}: {wrong}")
    try:
        hashable: Any = cls
        record: R = _reader(hashable).validate_python(upgrade(data))
    except ValidationError as error:
        raise RecordError(f"is damaged at {refused(error)}") from error
    if unresolved := record.spec.unresolved:
        raise RecordError(
            f"has a spec that depends on the machine: {' and '.join(unresolved)} must not be auto"
        )
    if record.spec.id != record.id:
        raise RecordError(
            f"was changed by hand: its spec hashes to {record.spec.id}, not to its id"
        )
    for contradiction in _contradictions(record):
        raise RecordError(f"contradicts itself: {contradiction}")
    return record


def _parsed(text: str) -> dict[str, Any]:
    """Read the JSON of a record; raise `RecordError` if it is not one."""
    if "NaN" in text or "Infinity" in text:  # the faster reader takes them for numbers
        data = _diagnosed(text)
    else:
        try:
            data = _json().validate_json(text)
        except ValueError:
            data = _diagnosed(text)
    if not isinstance(data, dict) or "schema" not in data or "spec" not in data:
        raise RecordError("is not a debiasbench record (it has no schema or no spec)")
    return data


def _diagnosed(text: str) -> Any:
    """Read JSON that a faster and stricter reader refused; say exactly what is wrong with it."""

    def refused(constant: str) -> float:
        raise RecordError(f"is not valid JSON (it holds {constant}, which is no number there)")

    try:
        data = json.loads(text, parse_constant=refused)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RecordError(f"is not valid JSON ({error})") from error
    except ValueError as error:  # Python reads no number of more than some thousand digits
        raise RecordError("is damaged: it has a number of too many digits") from error
    if wrong := fault(data):
        raise RecordError(f"is damaged: {wrong}")
    return data


def _contradictions(record: Result) -> Iterator[str]:
    """Yield what no run can have written, so that readers need not check it again."""
    task = record.task
    groups = len(task.classes) * len(task.biases)
    if [len(row) for row in task.aligned] != [len(task.biases)] * len(task.classes):
        yield "aligned is not a table of classes by biases"
    if task.metric not in METRICS or task.select not in RULES:
        yield f"metric {task.metric!r} or rule {task.select!r} is unknown"
    for split in ("train", "val", "test"):
        counts = task.group_counts.get(split, [])
        if (
            len(counts) != groups
            or min(counts, default=0) < 0
            or not 0 < sum(counts) <= MOST_SAMPLES
        ):
            yield f"group counts of {split} are not {groups} numbers of samples"
    yield from _impossible_entries(record)
    if not isinstance(record.provenance.arithmetic.get("precision", ""), str):
        yield "the precision in the provenance is not a name"
    yield from _impossible_costs(record.cost)
    checked: dict[str, list[int]] = {}
    for rule, outcome in record.outcomes.items():
        if rule not in RULES:
            yield f"rule {rule!r} is unknown"
        if outcome.epoch is not None and not 0 <= outcome.epoch < MOST_SAMPLES:
            yield f"the epoch of {rule} is impossible"
        for split in record.judged:
            result: SplitResult = getattr(outcome, split)
            if result.hits == checked.get(split):
                continue  # of another rule that keeps the same epoch
            checked[split] = result.hits
            counts = task.group_counts.get(split, [])
            if len(result.hits) != len(counts) or not _fits(result.hits, counts):
                yield f"hits of {rule} in {split} do not fit the group counts"


def _fits(hits: Sequence[int], counts: Sequence[int]) -> bool:
    return min(hits, default=0) >= 0 and all(map(operator.le, hits, counts))


def _impossible_entries(record: Result) -> Iterator[str]:
    for name in ("predictions", "weights"):
        entry: dict[str, str] | None = getattr(record, name, None)
        if entry is None:
            continue
        if not {"file", "sha256"} <= set(entry):
            yield f"{name} have no file name or no SHA-256"
        elif "\0" in entry["file"] or not Path(entry["file"]).name:
            yield f"{name} have no valid file name"


def _impossible_costs(cost: Cost | None) -> Iterator[str]:
    for name in () if cost is None else MEASURED:
        value = getattr(cost, name)
        if value < 0 or value == math.inf:
            yield f"{name} is {value}"


def _impossible_inference(record: Record) -> Iterator[str]:
    inference = record.inference
    if inference is None:
        return
    train = record.task.group_counts.get("train", [])
    stages = 0 if record.cost is None else len(record.cost.stages)
    if not 0 <= inference.stages <= stages:
        yield f"the inference was made after {inference.stages} of {stages} stages"
    if (inference.conflict, inference.groups, inference.auc) == (None, None, None):
        yield "the inference is empty"
    conflict, groups = inference.conflict, inference.groups
    if conflict is not None and (len(conflict) != len(train) or not _fits(conflict, train)):
        yield "the samples taken for conflicting do not fit the group counts of train"
    if groups is not None and (
        any(len(row) != len(train) or min(row) < 0 for row in groups)
        or [sum(column) for column in zip(*groups, strict=True)] != train
    ):
        yield "the pseudo-groups do not add up to the group counts of train"
    if inference.auc is not None and (inference.auc < 0 or inference.auc > 1):
        yield f"the AUC is {inference.auc}"


@cache
def _json() -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(Any)


@cache
def _reader(cls: type[Any]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


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
