"""Numbers that follow from others: metrics from hits, totals from stages, density (E04)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from debiasbench.records.metrics import accuracies_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debiasbench.records.record import Cost, Result

    Computed = dict[tuple[str, str], dict[str, float]]  # (rule, split) -> metric -> value

ROUNDING = 1e-12  # of a metric that is computed again from the same hits


def computed_accuracies(record: Result) -> Computed:
    """Compute every metric from the hits, once for rules that keep the same epoch."""
    computed: Computed = {}
    for split in record.judged if record.outcomes else ():
        hits = {rule: tuple(getattr(o, split).hits) for rule, o in record.outcomes.items()}
        different = list(dict.fromkeys(hits.values()))
        counts = record.task.splits[split]
        tables = np.array(different, dtype=np.int64).reshape(-1, *counts.totals.shape)
        values = dict(zip(different, accuracies_of(tables, counts), strict=True))
        computed |= {(rule, split): values[table] for rule, table in hits.items()}
    return {
        (rule, split): computed[rule, split] for rule in record.outcomes for split in record.judged
    }


def metrics(record: Result, computed: Computed) -> Iterator[str]:
    """Compare every stored metric with the one that follows from the hits."""
    for (rule, split), values in computed.items():
        stored = getattr(record.outcomes[rule], split).metrics
        if stored == values:
            continue
        for name, value in values.items():
            stated = stored.get(name, value)  # an older record may lack a newer metric
            if not close(stated, value, ROUNDING):
                yield f"{name} of {rule} in {split} is {stated}, but the hits give {value}"


def cost(cost: Cost) -> Iterator[str]:
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


def close(stated: float, computed: float, tolerance: float) -> bool:
    """Say whether two numbers are equal up to a tolerance, or both NaN."""
    if math.isnan(stated) or math.isnan(computed):
        return math.isnan(stated) and math.isnan(computed)
    return abs(stated - computed) <= tolerance
