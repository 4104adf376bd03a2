"""Cells of a table as text. Accuracies become percent here and nowhere else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from debiasbench.leaderboard.comparison import is_noise
from debiasbench.leaderboard.frame import plain
from debiasbench.leaderboard.notes import MARK, NOISE, TICKS
from debiasbench.leaderboard.row import deviation
from debiasbench.leaderboard.row import mean as average
from debiasbench.records.selection import RULES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from debiasbench.leaderboard.row import Difference, Row

COSTS = {  # heading -> name of the cost, its unit, and how it is written
    "density": ("density", 1.0, "{:.4g}"),
    "parameters": ("active_parameters", 1.0, "{:,.0f}"),
    "MFLOPs to predict": ("inference_flops", 1e6, "{:,.4g}"),
    "TFLOPs to train": ("training_flops", 1e12, "{:,.4g}"),
    "seconds": ("training_seconds", 1.0, "{:,.0f}"),
    "TFLOPs to search": ("search_flops", 1e12, "{:,.4g}"),
    "seconds to search": ("search_seconds", 1.0, "{:,.0f}"),
}
SEEN = {
    "train": {
        "none": "no bias labels in training",
        "conflict": "conflict bit in training",
        "groups": "group labels in training",
    },
    "val": {
        "none": "no bias labels in validation",
        "inputs": "validation inputs without labels",
        "select": "group labels of validation for selection",
        "fit": "trained on validation with group labels",
    },
}

INTERVAL = "95 % interval: over seeds and test samples together."
OF_SEEDS = (
    "95 % intervals and tests: over seeds alone, because predictions are missing, so that "
    "intervals are too narrow."
)
STRONG = (
    "Bold: the best of its section, and those that a paired test (Holm, 5 %) cannot distinguish "
    "from it."
)
WITHIN = "≈"
WITHIN_MEANS = f"{WITHIN}: within ±1 point, because the whole interval is."
STRONG_WORST = "Bold: the best of its section, and those that cannot be distinguished from it."
APART = (
    "Worst groups differ if intervals that hold for all rows of the section at once (5 %) do not "
    "overlap."
)
RANK = "Rank: within its section; the ranges hold together at 95 %."


def trusted(row: Row) -> str:
    """Write the name of a row, with a mark for how far maintainers checked it."""
    return f"{row.name} {TICKS[row.trust]}" if row.trust in TICKS else row.name


def mean(row: Row) -> str:
    """Write the mean over seeds, with the standard deviation if there is one."""
    return summary(row.values)


def summary(values: Mapping[int, float]) -> str:
    """Write the mean of fractions over seeds, with the standard deviation if there is one."""
    middle = percent(average(values))
    return middle if len(values) < 2 else f"{middle} ± {percent(deviation(values))}"


def flagged(text: str, metric: str, incomplete: Collection[str], row: Row) -> str:
    """Mark a number that leaves out groups without test samples, or says little of any group."""
    marks = MARK if metric in incomplete else ""
    marks += NOISE if metric == "worst_group" and is_noise(row) else ""
    return f"{text} {marks}" if marks and text != "—" else text


def bounds(row: Row) -> str:
    """Write the 95 % interval of the mean."""
    low, high = row.interval.low, row.interval.high
    if math.isnan(low):
        return "—"
    return f"{percent(max(low, 0.0))} – {percent(min(high, 1.0))}"


def interval(rows: Iterable[Row]) -> str:
    """Say what the intervals of rows are over."""
    rows = list(rows)
    basis = {row.interval.basis for row in rows if len(row.values) > 1}
    if not basis and any(row.interval.basis == "samples" for row in rows):
        return "95 % interval: over test samples alone (Wilson)."
    return OF_SEEDS if basis == {"seeds"} else INTERVAL


def strong(metric: str) -> str:
    """Say which rows are strong."""
    return f"{STRONG_WORST} {APART}" if metric == "worst_group" else STRONG


def rank(row: Row) -> str:
    """Write the ranks that a row may have in its section, such as "2–4 of 7"."""
    if row.rank is None:
        return "—"
    low, high, of = row.rank
    return f"{low} of {of}" if low == high else f"{low}–{high} of {of}"


def seeds(row: Row) -> str:
    """Write the number of seeds with a value, and of all if some have none."""
    planned = len(row.values) + len(row.failed) + len(row.missing)
    return str(planned) if len(row.values) == planned else f"{len(row.values)} of {planned}"


def difference(of: Difference) -> str:
    """Write a difference in points, with its 95 % interval."""
    value, low, high = (100 * number for number in (of.mean, of.low, of.high))
    return "—" if math.isnan(value) else f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def points(of: Difference) -> str:
    """Write a difference in points with its 95 % interval, and a sign if it is within a point."""
    if math.isnan(of.mean):
        return "—"
    value, low, high = map(signed, (of.mean, of.low, of.high))
    if of.mean == of.low == of.high == 0:
        return value
    text = value if math.isnan(of.low) else f"{value} ({low} to {high})"
    return f"{text} {WITHIN}" if is_within(of) else text


def signed(fraction: float) -> str:
    """Write a difference of fractions in points; zero has no sign."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text


def is_within(of: Difference, margin: float = 0.01) -> bool:
    """Say whether the interval of a difference lies within ± `margin`, one point."""
    return -margin <= of.low and of.high <= margin


def measured(values: Mapping[int, float], heading: str) -> str:
    """Write the mean of a cost over seeds, as the cost of that heading is written."""
    _, unit, form = COSTS[heading]
    return form.format(average(values) / unit) if values else "—"


def cost(heading: str, rows: Sequence[Row]) -> str:
    """Write a cost; of several rows the smallest and the largest, if they differ as written."""
    name, unit, form = COSTS[heading]
    if len(rows) == 1:  # most often, in tables of thousands of rows
        value = rows[0].costs.get(name, math.nan) / unit
        return "—" if math.isnan(value) else form.format(value)
    values = sorted(v for row in rows if not math.isnan(v := row.costs.get(name, math.nan) / unit))
    texts = list(dict.fromkeys(form.format(v) for v in values))
    if not texts:
        return "—"
    return texts[0] if len(texts) == 1 else f"{texts[0]} – {texts[-1]}"


def section(row: Row) -> str:
    """Write which bias labels a row sees, and how its settings were found, if rows differ in it."""
    seen = f"{SEEN['train'][row.train]}, {SEEN['val'][row.val]}"
    return f"{seen}, {row.tuning_name}" if row.tuning_name else seen


def options(row: Row) -> str:
    """Write the method of a row with all its options; of a tuned row also what was searched."""
    settings = {**row.options, **row.searched}
    text = ", ".join(f"{name}={plain(value)}" for name, value in sorted(settings.items()))
    return f"{row.name}, {row.found_by}: {text}" if row.found_by else f"{row.method}: {text}"


def percent(value: float) -> str:
    """Write a fraction in percent, NaN as a dash."""
    return "—" if math.isnan(value) else f"{100 * value:.1f}"


def epoch(rule: str) -> str:
    """Write which epoch a selection rule takes."""
    return "after the last epoch" if RULES[rule] is None else f"at the epoch selected by {rule}"


def words(name: str) -> str:
    """Write a name such as worst_group as words."""
    return name.replace("_", " ")
