"""What a reader must know beside the numbers of a table, in sentences."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from debiasbench.leaderboard.comparison import RANKED, accuracy_of, is_comparable, is_noise
from debiasbench.leaderboard.frame import plain
from debiasbench.leaderboard.row import common
from debiasbench.records.metrics import GroupCounts, incomplete
from debiasbench.records.selection import USES_GROUPS
from debiasbench.records.trust import LEVELS
from debiasbench.specs.revisions import RULES_REVISION

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from debiasbench.leaderboard.comparison import Comparison
    from debiasbench.leaderboard.row import Row
    from debiasbench.records.record import Provenance, Record, TaskFacts


LISTED = 8  # groups that a note names
MARK = "†"  # of a number that leaves groups out
NOISE = "‡"  # of a worst group that says little
NOISY = f"Worst group ({NOISE})"
TICKS = {"independent": "✓✓✓", "reproduced": "✓✓", "verified": "✓"}  # behind the name of a row
TRUST = {  # level -> how a note says it
    "independent": f"Run again by others with equal results ({TICKS['independent']})",
    "reproduced": f"One record run again by maintainers ({TICKS['reproduced']})",
    "verified": f"Verified from files, not run again ({TICKS['verified']})",
    "listed": "Reported by the authors, and only consistent with their predictions",
}
SMALL = "The smallest group of the validation split"
OLD_RULES = "Epochs were selected by older rules"
FEW = 20  # samples of a validation group, below which a rule selects by chance


def conditions(rows: Sequence[Row], records: Sequence[Record]) -> str:
    """Describe the samples, the training that all rows share, and the machines."""
    return f"Samples: {samples([records[0].task])}. {training(rows)} {made_on(records)}"


def samples(tasks: Sequence[TaskFacts]) -> str:
    """Write the size of each split and how much of it conflicts, for all tasks in order."""
    parts = []
    for split in ("train", "val", "test"):
        sizes = dict.fromkeys(f"{sum(task.group_counts[split]):,}" for task in tasks)
        shares = dict.fromkeys(f"{100 * _conflicting(task, split):.3g}" for task in tasks)
        parts.append(f"{', '.join(sizes)} {split} ({', '.join(shares)} % conflicting)")
    return ", ".join(parts)


def training(rows: Sequence[Row]) -> str:
    """Write the training settings that all rows share, apart from what searches found."""
    shared = common(
        [row.training for row in rows if not row.found_by] or [r.training for r in rows]
    )
    return f"Training: {', '.join(f'{k}={plain(v)}' for k, v in sorted(shared.items()))}."


def made_on(records: Sequence[Record]) -> str:
    """Name the machines, with the version of torch and the precision."""
    return f"Made on {'; '.join(sorted({_machine(r.provenance) for r in records}))}."


def _machine(made: Provenance) -> str:
    precision = _precision(made)
    half = "" if precision == "fp32" else f", {precision}"
    return f"{made.hardware}, torch {made.versions.get('torch', '?')}{half}"


def _precision(made: Provenance) -> str:
    return str(made.arithmetic.get("precision", "fp32"))  # older records had no other


def notes(
    rows: Sequence[Row],
    records: Sequence[Record],
    rule: str,
    unverified: Collection[str],
    comparison: Comparison,
) -> list[str]:
    """Name what limits a comparison of the rows.

    That is: groups without test samples or with few, small validation groups, seeds without a
    result, rows of one seed, rows that are not compared, intervals over seeds alone, a validation
    split that was balanced with bias labels, different versions and machines, and records that were
    not verified.
    """
    task = records[0].task
    sentences = [
        *_untested_groups(task),
        *_noise(rows, comparison),
        *_small_validation_groups(task, rule),
        *_old_rules(rows, rule),
        *_seeds(rows),
        *_not_compared(rows),
        *over_seeds_alone(rows),
        *_trust(rows),
    ]
    if rule not in USES_GROUPS | {"last"} and _conflicting(task, "val") > 2 * _conflicting(
        task, "train"
    ):
        sentences.append(
            f"{rule} reads no bias labels, but the validation split was balanced with them."
        )
    single = [row for row in rows if len(row.values) == 1]
    for samples, reason in (
        (True, "the interval is over test samples alone, and there is no comparison"),
        (False, "there is no interval and no comparison"),
    ):
        if named := [r.name for r in single if (r.interval.basis == "samples") == samples]:
            sentences.append(f"One seed each, so {reason}: {', '.join(named)}.")
    return [*sentences, *_differences(records), *_not_verified(records, unverified)]


def of_runs(
    rows: Sequence[Row], records: Sequence[Record], unverified: Collection[str]
) -> list[str]:
    """Name those limits that do not depend on the test split: seeds, versions, verification."""
    return [*_seeds(rows), *_differences(records), *_not_verified(records, unverified)]


def _noise(rows: Sequence[Row], comparison: Comparison) -> list[str]:
    """Name the largest accuracy at which the worst group is mostly chance."""
    if not (noisy := [row for row in rows if is_noise(row)]):
        return []
    row = max(noisy, key=lambda row: row.floor)
    smallest = min(int(n) for n in comparison.test.totals.ravel() if n)
    samples = "sample" if smallest == 1 else "samples"
    return [
        f"{NOISY}: groups have as few as {smallest} test {samples}. A classifier that "
        f"is right for {100 * accuracy_of(row):.1f} % of every group would show "
        f"{100 * row.floor:.1f} % for its worst one by chance, so sections with such a row are not "
        "ranked by it."
    ]


def _small_validation_groups(task: TaskFacts, rule: str) -> list[str]:
    smallest = min(n for n in task.group_counts["val"] if n)
    if rule not in USES_GROUPS or smallest >= FEW:
        return []
    samples = "sample" if smallest == 1 else "samples"
    return [f"{SMALL} has {smallest} {samples}, so {rule} selects epochs by chance in part."]


def by_older_rules(row: Row) -> bool:
    """Say whether the epochs of a row were selected by an older revision of the rules."""
    return row.revisions.get("rules", 1) < RULES_REVISION


def _old_rules(rows: Sequence[Row], rule: str) -> list[str]:
    """Say that epochs were selected by an older revision of the rules."""
    old = [row.name for row in rows if by_older_rules(row) and row.values]
    if rule == "last" or not old:
        return []
    which = "" if len(old) == len(rows) else f" for {', '.join(old)}"
    return [
        f"{OLD_RULES}{which}, of revision 1 instead of {RULES_REVISION}: {rule} kept the earliest "
        "of epochs with equal accuracy."
    ]


def _not_compared(rows: Sequence[Row]) -> list[str]:
    sentences = []
    sections = Counter(row.level for row in rows)
    if max(sections.values(), default=0) > RANKED:
        sentences.append(f"Sections of more than {RANKED} rows have no ranks.")
    ranked = {row.level for row in rows if row.rank}
    if alone := [r.name for r in rows if is_comparable(r) and not r.rank and r.level in ranked]:
        sentences.append(
            "Without two seeds in common with another row, or without predictions, so no rank and "
            f"no mark: {', '.join(alone)}."
        )
    if failed := [row.name for row in rows if row.failed and row.values]:
        sentences.append(f"Failed runs, so no rank and no mark: {', '.join(failed)}.")
    sentences += [
        f"{row.name} is {_out(row)} not compared: {row.stale}." for row in rows if row.stale
    ]
    return sentences


def _out(row: Row) -> str:
    return "out of date and" if row.stale.startswith("revision") else "shown but"


def _trust(rows: Sequence[Row]) -> list[str]:
    """Say how far maintainers checked rows, from the most trusted level to the least."""
    named = {level: [row.name for row in rows if row.trust == level] for level in LEVELS}
    return [f"{TRUST[level]}: {', '.join(named[level])}." for level in TRUST if named[level]]


def over_seeds_alone(rows: Sequence[Row]) -> list[str]:
    """Name the rows of which predictions are missing, unless it is all of them."""
    several = [row for row in rows if len(row.values) > 1]
    alone = [row.name for row in several if row.interval.basis == "seeds"]
    if not alone or len(alone) == len(several):
        return []  # the description of the numbers says it of all rows
    return [
        f"{', '.join(alone)}: intervals and tests are over seeds alone, because predictions are "
        "missing, so that they are too narrow."
    ]


def _untested_groups(task: TaskFacts) -> list[str]:
    """Name the groups without test samples, which metrics cannot judge."""
    groups = [f"{c} with {b}" for c in task.classes for b in task.biases]
    counts = task.group_counts["test"]
    empty = [group for group, count in zip(groups, counts, strict=True) if count == 0]
    if not empty:
        return []
    more = f" and {len(empty) - LISTED} more" if len(empty) > LISTED else ""
    *others, last = (name.replace("_", " ") for name in incomplete_metrics(task))
    return [
        f"The test split has no sample of {', '.join(empty[:LISTED])}{more}: {', '.join(others)} "
        f"and {last} leave these groups out (marked {MARK}), so their values are too favourable if "
        "a classifier fails there."
    ]


def incomplete_metrics(task: TaskFacts) -> list[str]:
    """Name the metrics that leave out groups without test samples."""
    counts = task.group_counts
    return incomplete(GroupCounts.of(counts["test"], counts["test"], task.aligned, counts["train"]))


def _seeds(rows: Sequence[Row]) -> list[str]:
    sentences = []
    of = {row.name: {*row.values, *row.failed, *row.missing} for row in rows}
    everywhere = set().union(*of.values())
    for row in rows:
        if absent := everywhere - of[row.name]:
            which = "seed" if len(absent) == 1 else "seeds"
            sentences.append(f"{row.name}: no record for {which} {listed(absent)}.")
        by_reason: dict[str, list[int]] = {}
        for seed, reason in {**row.failed, **row.missing}.items():
            by_reason.setdefault(reason, []).append(seed)
        for reason, seeds in by_reason.items():
            which = "seed {} does not" if len(seeds) == 1 else "seeds {} do not"
            sentences.append(f"{row.name}: {which.format(listed(seeds))} count: {reason}.")
    return sentences


def listed(seeds: Iterable[int]) -> str:
    """Write seeds in order, with three or more in a row as a range: "0-4, 6, 9"."""
    runs: list[list[int]] = []  # first and last of seeds without a gap
    for seed in sorted(seeds):
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    parts = [
        f"{first}-{last}" if last - first > 1 else ", ".join(map(str, range(first, last + 1)))
        for first, last in runs
    ]
    return ", ".join(parts)


def _differences(records: Sequence[Record]) -> list[str]:
    made = [r.provenance for r in records]
    kinds = {
        "versions of debiasbench": {p.versions.get("debiasbench", "?") for p in made},
        "commits of debiasbench": {p.git or "none" for p in made},
        "versions of torch": {p.versions.get("torch", "?") for p in made},
        "versions of the model": {p.plugins.get("model", "?") for p in made},
        "versions of the data set": {p.plugins.get("dataset", "?") for p in made},
        "precisions": {_precision(p) for p in made},
        "machines, so times do not compare": {p.hardware for p in made},
    }
    return [
        f"Made with different {kind}: {'; '.join(sorted(values))}."
        for kind, values in kinds.items()
        if len(values) > 1
    ]


def _not_verified(records: Sequence[Record], unverified: Collection[str]) -> list[str]:
    """Name the records without predictions by method and seed."""
    seeds: dict[str, list[int]] = {}
    for record in records:
        if record.id in unverified:
            seeds.setdefault(record.spec.method.name, []).append(record.spec.seed)
    if not seeds:
        return []
    named = [f"{name} (seeds {listed(set(seeds[name]))})" for name in sorted(seeds)]
    return [f"Not verified, because predictions are missing: {'; '.join(named)}."]


def _conflicting(task: TaskFacts, split: str) -> float:
    """Return the fraction of a split's samples that conflict."""
    aligned = [flag for row in task.aligned for flag in row]
    counts = task.group_counts[split]
    return sum(n for n, flag in zip(counts, aligned, strict=True) if not flag) / sum(counts)
