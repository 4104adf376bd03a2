"""Which epoch each selection rule keeps, of those with predictions and of all in the curves (E05).

Curves have six significant digits. Two epochs whose values are equal in them may have differed in
the last digits, so it is only certain that they were equal if both are 0 or the metric is a ratio
of two small whole numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from debiasbench.records.checks.numbers import ROUNDING, close
from debiasbench.records.metrics import weights
from debiasbench.records.selection import RULES, USES_GROUPS
from debiasbench.specs.revisions import revision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from debiasbench.records.checks.numbers import Computed
    from debiasbench.records.record import Result, Selected

RATIOS = frozenset({"average", "worst_group"})  # metrics that are samples by samples
FEW = 700  # samples; in smaller groups, two different ratios differ within six digits
TIES = 2  # since this revision of the rules, ties go to the later epoch; see `Tracker`
CHANGED = 2  # samples of a group that another computation of the same network may change


def kept(record: Result, computed: Computed) -> Iterator[str]:
    """Check that every rule kept the best of the epochs that were kept, and its value.

    The value was measured during training, the hits afterwards with the same weights. On a device
    that does not compute the same twice, two samples may have changed.
    """
    of_epochs = {rule: o for rule, o in record.outcomes.items() if o.epoch is not None}
    by_epoch = {o.epoch: computed[rule, "val"] for rule, o in of_epochs.items()}
    for rule, outcome in record.outcomes.items():
        metric = RULES[rule]
        if metric is None or outcome.epoch is None:
            if not math.isnan(outcome.value):
                yield f"the value of {rule} is {outcome.value}, but the rule has no value here"
            continue
        expected = computed[rule, "val"][metric]
        tolerance = _tolerance(record, metric)
        if not close(outcome.value, expected, tolerance):
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
    yield from _last(record, of_epochs)


def _tolerance(record: Result, metric: str) -> float:
    """Return how much a metric changes if two samples of the most influential group change.

    A CPU computes the same twice, whatever the record says.
    """
    if record.provenance.deterministic or record.provenance.device == "cpu":
        return ROUNDING
    counts = record.task.splits["val"]
    present = counts.totals > 0
    share = weights(counts, metric)  # None: the metric is the accuracy of one group
    influence = (1.0 if share is None else share[present]) / counts.totals[present]
    return CHANGED * float(influence.max(initial=0.0)) + ROUNDING


def _last(record: Result, of_epochs: Mapping[str, Selected]) -> Iterator[str]:
    """Check that `last` is the last epoch that any rule kept, and the last of some stage."""
    if "last" not in of_epochs:
        return
    last = of_epochs["last"].epoch
    latest = max(o.epoch or 0 for o in of_epochs.values())
    if last != latest:
        yield f"last keeps epoch {last}, but another rule keeps epoch {latest}"
    stages = [] if record.cost is None else record.cost.stages
    epochs = [stage["epochs"] for stage in stages if "epochs" in stage]
    if epochs and last not in epochs:
        taken = ", ".join(map(str, epochs))
        yield f"last keeps epoch {last}, but the stages took {taken} epochs"


def curves(record: Result, computed: Computed) -> Iterator[str]:
    """Check every rule against the validation metrics of all epochs.

    The curves of the stage that made the network are those that agree with the kept epochs.
    Records without curves are older, and have nothing to check here.
    """
    of_epochs = {rule: o for rule, o in record.outcomes.items() if o.epoch is not None}
    if not record.curves or not of_epochs:
        return
    yield from _stages(record)
    followed = [c.values for c in record.curves if "val_average" in c.values]
    long_enough = [
        v for v in followed if _length(v) == max(o.epoch or 0 for o in of_epochs.values())
    ]
    mismatches = [list(_mismatches(record, values, of_epochs, computed)) for values in long_enough]
    if not long_enough:
        yield "no stage has validation curves that end with the epoch that last keeps"
    elif all(mismatches):
        yield min(mismatches, key=len)[0]
    else:
        agreeing = [v for v, wrong in zip(long_enough, mismatches, strict=True) if not wrong]
        worse = [list(_better(record, values, of_epochs)) for values in agreeing]
        if all(worse):  # stages with equal curves are checked together
            yield from min(worse, key=len)


def uneven(record: Result) -> Iterator[str]:
    """Check that all curves of a stage have equally many values, also in a failed run (E01)."""
    for one in record.curves:
        lengths = sorted({len(values) for values in one.values.values()})
        if len(lengths) > 1:
            yield (
                f"the curves of {one.stage!r} have {' and '.join(map(str, lengths))} values, "
                "instead of one for each epoch"
            )


def _stages(record: Result) -> Iterator[str]:
    """Check that each stage has a curve with a value for each of its epochs."""
    stages = [] if record.cost is None else record.cost.stages
    if len(stages) != len(record.curves):
        yield f"there are {len(stages)} stages, but curves of {len(record.curves)}"
        return
    for stage, one in zip(stages, record.curves, strict=True):
        lengths = sorted({len(values) for values in one.values.values()})
        epochs = stage.get("epochs")
        if stage.get("name") != one.stage or (lengths and lengths != [epochs]):
            yield (
                f"stage {stage.get('name')!r} took {epochs} epochs, but the curves of "
                f"{one.stage!r} have {' and '.join(map(str, lengths))} values"
            )


def _length(values: Mapping[str, Sequence[float]]) -> int:
    return min(len(v) for name, v in values.items() if name.startswith("val_"))


def _mismatches(
    record: Result,
    values: Mapping[str, Sequence[float]],
    of_epochs: Mapping[str, Selected],
    computed: Computed,
) -> Iterator[str]:
    """Yield where curves do not agree with the hits and the values of the epochs that are kept."""
    for rule, outcome in of_epochs.items():
        assert outcome.epoch is not None
        for metric, expected in computed[rule, "val"].items():
            curve = values.get(f"val_{metric}")
            if curve is None or not 1 <= outcome.epoch <= len(curve):
                continue
            stated = curve[outcome.epoch - 1]
            if not close(stated, expected, max(_tolerance(record, metric), _digits(expected))):
                yield (
                    f"the curve of {metric} in val is {stated} at epoch {outcome.epoch}, but the "
                    f"hits of {rule} give {expected}"
                )
            elif metric == RULES[rule] and not close(stated, outcome.value, _digits(stated)):
                yield (
                    f"the curve of {metric} in val is {stated} at epoch {outcome.epoch}, but the "
                    f"value of {rule} is {outcome.value}"
                )


def _better(
    record: Result, values: Mapping[str, Sequence[float]], of_epochs: Mapping[str, Selected]
) -> Iterator[str]:
    """Yield the rules that keep an epoch although the curves have a better one."""
    first = _first_eligible(record, of_epochs)
    for rule, outcome in of_epochs.items():
        metric, epoch = RULES[rule], outcome.epoch
        if metric is None or epoch is None or f"val_{metric}" not in values:
            continue
        candidates = _candidates(record, values, rule, metric, first)
        if candidates and epoch not in candidates:
            curve = values[f"val_{metric}"]
            yield (
                f"{rule} keeps epoch {epoch} with {metric} {curve[epoch - 1]} in val, but must "
                f"keep epoch {candidates[-1]} with {curve[candidates[-1] - 1]}"
            )


def _first_eligible(record: Result, of_epochs: Mapping[str, Selected]) -> int:
    """Return an epoch from which on rules could select for certain.

    A network that becomes sparse cannot be selected before it is as sparse as requested.
    """
    dense = record.spec.sparse is None and record.cost is not None and record.cost.density == 1
    return 1 if dense else min(o.epoch or 1 for o in of_epochs.values())


def _candidates(
    record: Result, values: Mapping[str, Sequence[float]], rule: str, metric: str, first: int
) -> list[int]:
    """Return the epochs of which a rule may keep one; none if all values are NaN."""
    curve = values[f"val_{metric}"]
    unbiased = values.get("val_unbiased", curve)
    epochs = [e for e in range(first, len(curve) + 1) if not math.isnan(curve[e - 1])]
    if not epochs:
        return []
    best = max(curve[e - 1] for e in epochs)
    digits = _digits(best)
    tied = [e for e in epochs if close(curve[e - 1], best, digits)]
    if not _is_exact(record, metric, best):
        return tied
    if revision(record.spec.revisions, "rules") < TIES:
        return tied[:1]
    if rule not in USES_GROUPS:
        return tied[-1:]  # it reads no bias labels
    top = max(unbiased[e - 1] for e in tied)
    return [e for e in tied if close(unbiased[e - 1], top, _digits(top))]


def _is_exact(record: Result, metric: str, value: float) -> bool:
    """Say whether epochs with this value in six digits had exactly the same."""
    counts = record.task.group_counts["val"]
    largest = sum(counts) if metric == "average" else max(counts)
    # ratios of one total differ by 1 / total, those of different totals by 1 / (total * total)
    few = largest < FEW * FEW if metric == "average" else largest < FEW
    return value == 0 or (metric in RATIOS and few)


def _digits(value: float) -> float:
    """Return how much a number with six significant digits may differ from `value`."""
    return (
        0.0
        if value == 0 or not math.isfinite(value)
        else 0.51 * 10 ** (math.floor(math.log10(abs(value))) - 5)
    )
