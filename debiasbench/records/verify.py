"""Checks that a record agrees with itself and with the predictions beside it; without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.common.errors import RecordError
from debiasbench.records.beside import content, location, most_bytes, prediction_key
from debiasbench.records.inference import INFERRED, Inference, count
from debiasbench.records.metrics import accuracies_of
from debiasbench.records.selection import RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from debiasbench.records.record import Cost, Outcome, Record

    Computed = dict[tuple[str, str], dict[str, float]]  # (rule, split) -> metric -> value
    Stored = Mapping[str, NDArray[Any]]

ROUNDING = 1e-12  # of a metric that is computed again from the same hits
SPLITS = ("val", "test")


@dataclass(frozen=True)
class Checked:
    """Records sorted by what checking them found.

    `sound`: records that do not contradict themselves. `contradictions`: the others, each with at
    least one message. `unverified`: those sound records whose hits could not be compared with
    predictions, with the reason.
    """

    sound: list[tuple[Path, Record]]
    contradictions: list[tuple[Path, list[str]]]
    unverified: list[tuple[Path, Record, str]]


def check(records: Iterable[tuple[Path, Record]]) -> Checked:
    """Verify records that were read from the paths beside them."""
    checked = Checked([], [], [])
    for path, record in records:
        found = examine(path, record)
        if found.messages:
            checked.contradictions.append((path, found.messages))
            continue
        checked.sound.append((path, record))
        if found.unverified:
            checked.unverified.append((path, record, found.unverified))
    return checked


def verify(path: Path, record: Record) -> list[str]:
    """Return a message for each contradiction in a record, none if it agrees with itself.

    `path` is the file that `record` was read from; its predictions are in the same folder. A
    record whose predictions are missing is checked as far as possible: see `why_unverified`.
    """
    return examine(path, record).messages


@dataclass(frozen=True, eq=False)
class Examined:
    """What `examine` found.

    `messages`: one for each contradiction. `unverified`: see `why_unverified`. `stored`: the
    content of the predictions file, None if there is none or it contradicts the record.
    """

    messages: list[str]
    unverified: str | None
    stored: Stored | None


def examine(path: Path, record: Record) -> Examined:
    """Return what `verify` and `why_unverified` do, and what the predictions file holds."""
    computed = _accuracies(record)
    reason = why_unverified(path, record)
    stored, trouble = (None, None) if reason else _stored(path, record)
    contradictions = chain(
        _spec(record),
        _status(record),
        [trouble] if trouble else (),
        () if stored is None else _predictions(record, stored),
        _metrics(record, computed),
        _selection(record, computed),
        () if record.cost is None else _cost(record.cost),
    )
    messages = list(contradictions)
    return Examined(messages, reason, None if messages else stored)


def why_unverified(path: Path, record: Record) -> str | None:
    """Return why the hits of a record cannot be compared with predictions, None if they can."""
    if not record.outcomes:
        return None  # there are no hits
    if record.predictions is None:
        return "the record names no predictions"
    if not location(path, record.predictions).exists():
        return f"its predictions are missing ({location(path, record.predictions).name})"
    return None


def _spec(record: Record) -> Iterator[str]:
    if record.id != record.spec.id:
        yield f"the id is {record.id}, but the spec hashes to {record.spec.id}"
    stated = record.spec.training.get("precision", "fp32")
    used = record.provenance.arithmetic.get("precision", stated)
    if stated != used:
        yield f"the spec says precision {stated}, but the provenance says {used}"


def _status(record: Record) -> Iterator[str]:
    ok = record.status == "ok"
    if ok == (record.failure is not None):
        yield f"the status is {record.status}, but there is {'a' if ok else 'no'} failure"
    if ok != bool(record.outcomes):
        yield f"the status is {record.status}, but there are {len(record.outcomes)} outcomes"
    if ok and record.cost is None:
        yield "the status is ok, but there is no cost"
    if not ok and record.predictions is not None:
        yield "the status is failed, but there are predictions"
    if not ok and record.inference is not None:
        yield "the status is failed, but there is an inference"


def _accuracies(record: Record) -> Computed:
    """Compute every metric from the hits, once for rules that keep the same epoch."""
    computed: Computed = {}
    for split in SPLITS if record.outcomes else ():
        hits = {rule: tuple(getattr(o, split).hits) for rule, o in record.outcomes.items()}
        different = list(dict.fromkeys(hits.values()))
        counts = record.task.splits[split]
        tables = np.array(different, dtype=np.int64).reshape(-1, *counts.totals.shape)
        values = dict(zip(different, accuracies_of(tables, counts), strict=True))
        computed |= {(rule, split): values[table] for rule, table in hits.items()}
    return {(rule, split): computed[rule, split] for rule in record.outcomes for split in SPLITS}


def _metrics(record: Record, computed: Computed) -> Iterator[str]:
    """Compare every stored metric with the one that follows from the hits."""
    for (rule, split), values in computed.items():
        stored = getattr(record.outcomes[rule], split).metrics
        if stored == values:
            continue
        for name, value in values.items():
            stated = stored.get(name, value)  # an older record may lack a newer metric
            if not _close(stated, value, ROUNDING):
                yield f"{name} of {rule} in {split} is {stated}, but the hits give {value}"


def _selection(record: Record, computed: Computed) -> Iterator[str]:
    """Check that every rule kept the best of the epochs that are known, and its value.

    The value was measured during training, the hits afterwards with the same weights. On a device
    that does not compute the same twice, two samples of the smallest group may have changed.
    """
    counts = [n for n in record.task.group_counts["val"] if n]
    tolerance = ROUNDING if record.provenance.deterministic else 2 / min(counts)
    kept = {rule: o for rule, o in record.outcomes.items() if o.epoch is not None}
    by_epoch = {o.epoch: computed[rule, "val"] for rule, o in kept.items()}
    for rule, outcome in record.outcomes.items():
        metric = RULES[rule]
        if metric is None or outcome.epoch is None:
            if not math.isnan(outcome.value):
                yield f"the value of {rule} is {outcome.value}, but the rule has no value here"
            continue
        expected = computed[rule, "val"][metric]
        if not _close(outcome.value, expected, tolerance):
            yield (
                f"the value of {rule} is {outcome.value}, but {metric} in val at epoch "
                f"{outcome.epoch} is {expected}"
            )
        for epoch, values in by_epoch.items():
            if values[metric] > expected + tolerance:
                yield (
                    f"{rule} keeps epoch {outcome.epoch} with {metric} {expected} in val, but "
                    f"epoch {epoch} has {values[metric]}"
                )
    yield from _last(record, kept)


def _last(record: Record, kept: Mapping[str, Outcome]) -> Iterator[str]:
    """Check that `last` is the last epoch that any rule kept, and the last of some stage."""
    if "last" not in kept:
        return
    last = kept["last"].epoch
    latest = max(o.epoch or 0 for o in kept.values())
    if last != latest:
        yield f"last keeps epoch {last}, but another rule keeps epoch {latest}"
    stages = [] if record.cost is None else record.cost.stages
    epochs = [stage["epochs"] for stage in stages if "epochs" in stage]
    if epochs and last not in epochs:
        taken = ", ".join(map(str, epochs))
        yield f"last keeps epoch {last}, but the stages took {taken} epochs"


def _cost(cost: Cost) -> Iterator[str]:
    """Check parameters against density, and totals against stages."""
    inactive = cost.parameters - cost.active_parameters
    if not 0 <= inactive <= cost.parameters:
        yield f"{cost.active_parameters} of {cost.parameters} parameters are active"
    elif not 0 <= cost.density <= 1 or (inactive == 0) != (cost.density == 1):
        yield f"the density is {cost.density}, but {inactive} parameters are inactive"
    elif inactive:
        # density = 1 - inactive / prunable, where the prunable weights are a whole number
        prunable = inactive / (1 - cost.density)
        error = 1e-6 + prunable * np.finfo(float).eps / (1 - cost.density)
        if abs(prunable - round(prunable)) > error or round(prunable) > cost.parameters:
            yield (
                f"the density is {cost.density}, but no number of weights has this density with "
                f"{inactive} of {cost.parameters} parameters inactive"
            )
    for total, part in (("training_flops", "flops"), ("training_seconds", "seconds")):
        parts = [s[part] for s in cost.stages if isinstance(s.get(part), int | float)]
        stated = getattr(cost, total)
        if len(parts) == len(cost.stages) > 0 and not math.isclose(sum(parts), stated):
            yield f"{total} is {stated}, but the stages add up to {sum(parts)}"


def _stored(path: Path, record: Record) -> tuple[Stored | None, str | None]:
    """Return the content of the predictions file, or what is wrong with the file."""
    if record.predictions is None:
        return None, None
    from safetensors.numpy import load

    try:
        return load(content(path, record.predictions, most_bytes(record))), None
    except RecordError as error:
        return None, str(error)
    except Exception as error:  # whatever the reader raises for a file that somebody made
        file = location(path, record.predictions).name
        return None, f"{file} is not a predictions file ({error})"


def _predictions(record: Record, stored: Stored) -> Iterator[str]:
    """Compare group counts with the labels beside a record, and hits with its predictions."""
    for split in SPLITS:
        counts = record.task.group_counts[split]
        y, group = (_labels(stored, f"{split}.{name}", sum(counts)) for name in ("y", "group"))
        if y is None or group is None or group.max() >= len(counts):
            yield f"the predictions lack the labels of the {sum(counts)} samples of {split}"
            continue
        if (y != group // np.int64(len(record.task.biases))).any():
            yield f"the classes and the groups in the predictions of {split} do not agree"
        if different := _different(record, counts, _counted(group, len(counts))):
            yield f"group counts of {split}: {different}, by the labels in the predictions"
        right: dict[str, list[int] | None] = {}  # hits by key; rules that keep an epoch share it
        for rule, outcome in record.outcomes.items():
            key = f"{split}.{prediction_key(outcome.epoch)}"
            if key not in right:
                predicted = _labels(stored, key, sum(counts))
                right[key] = (
                    None if predicted is None else _counted(group[predicted == y], len(counts))
                )
            if (found := right[key]) is None:
                yield f"the predictions lack {key}, which {rule} needs"
                continue
            hits = getattr(outcome, split).hits
            if different := _different(record, hits, found):
                yield f"hits of {rule} in {split}: {different}, by the predictions"

    yield from _inference(record, stored)


def _inference(record: Record, stored: Stored) -> Iterator[str]:
    """Compare what was counted of a method's inferences with what is stored beside the record."""
    found = {k.removeprefix(INFERRED): v for k, v in stored.items() if k.startswith(INFERRED)}
    if record.inference is None:
        if found:
            yield "the predictions hold what the method inferred, but the record does not"
        return
    counts, stated = record.task.group_counts["train"], record.inference
    y, group = (_labels(stored, f"train.{name}", sum(counts)) for name in ("y", "group"))
    if y is None or group is None or group.max() >= len(counts):
        yield f"the predictions lack the labels of the {sum(counts)} samples of train"
        return
    if (y != group // np.int64(len(record.task.biases))).any():
        yield "the classes and the groups in the predictions of train do not agree"
    if different := _different(record, counts, _counted(group, len(counts))):
        yield f"group counts of train: {different}, by the labels in the predictions"
    for name, values in found.items():
        if not _is_inferred(name, values, sum(counts)):
            yield f"{INFERRED}{name} in the predictions is nothing that a method can infer"
            return
    if "groups" in found and len(np.unique(found["groups"])) != len(stated.groups or ()):
        yield "the counts of pseudo-groups are not those in the predictions"
        return
    counted = count(found, group, record.task.splits["train"].aligned, stated.stages)
    if counted.conflict != stated.conflict:
        yield "the samples taken for conflicting are not those in the predictions"
    if counted.groups != stated.groups:
        yield "the counts of pseudo-groups are not those in the predictions"
    if not _same_area(counted, stated):
        yield f"the AUC is {stated.auc}, but the scores in the predictions give {counted.auc}"


def _is_inferred(name: str, values: NDArray[Any], number: int) -> bool:
    kinds = {"groups": "ui", "conflict": "b", "scores": "f"}
    fits = values.shape == (number,) and values.dtype.kind in kinds.get(name, "")
    return fits and not (name == "scores" and bool(np.isnan(values).any()))


def _same_area(counted: Inference, stated: Inference) -> bool:
    if counted.auc is None or stated.auc is None:
        return counted.auc is stated.auc
    return _close(stated.auc, counted.auc, ROUNDING)


def _labels(
    stored: Mapping[str, NDArray[np.integer]], key: str, number: int
) -> NDArray[np.integer] | None:
    """Return an array of `number` whole numbers from 0 on, None if there is no such array."""
    array = stored.get(key)
    if array is None or array.shape != (number,) or array.dtype.kind not in "ui":
        return None
    if array.dtype in (np.uint8, np.uint16, np.uint32):
        return array
    values = array.astype(np.int64)  # the largest numbers of 64 bits become negative
    return None if values.min() < 0 else values


def _counted(groups: NDArray[np.integer], number: int) -> list[int]:
    counts: list[int] = np.bincount(groups, minlength=number).tolist()
    return counts


def _different(record: Record, stated: list[int], counted: list[int]) -> str:
    """Name the first group whose stated count is not the counted one, and how many others."""
    if counted == stated:
        return ""
    differing = [g for g, count in enumerate(counted) if count != stated[g]]
    first, biases = differing[0], record.task.biases
    name = f"class {record.task.classes[first // len(biases)]}, bias {biases[first % len(biases)]}"
    more = f" and {len(differing) - 1} more groups differ" if len(differing) > 1 else ""
    return f"{stated[first]} instead of {counted[first]} in group {first} ({name}){more}"


def _close(stated: float, computed: float, tolerance: float) -> bool:
    if math.isnan(stated) or math.isnan(computed):
        return math.isnan(stated) and math.isnan(computed)
    return abs(stated - computed) <= tolerance
