"""From rows to classes, bias values, their alignment and a task; and what is odd about it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError, OptionError, suggestion
from debiasbench.files.importing.vetting import PERCENT

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch import Tensor

    from debiasbench.core.data import Task
    from debiasbench.files.importing.source import Row, Source

MOST_GROUPS = 100_000
TINY = 10  # samples; fewer in a group make its accuracy a matter of luck


@dataclass(frozen=True, eq=False)
class Plan:
    """What a task of rows has but for its images.

    `y`, `bias`: (N,) int64, in the order of the rows, which is that of their splits; `sizes`:
    samples of train, val and test; `aligned`: (C, B) bool, `how` it was found.
    """

    classes: tuple[str, ...]
    biases: tuple[str, ...]
    y: Tensor
    bias: Tensor
    sizes: tuple[int, int, int]
    aligned: Tensor
    how: str

    def task(self, x: Tensor) -> Task:
        """Return the task with (N, 3, H, W) uint8 images in the order of the rows."""
        from debiasbench.core.data import Split, Task

        ends = list(accumulate(self.sizes))
        train, val, test = (
            Split(x[a:b], self.y[a:b], self.bias[a:b], num_biases=len(self.biases))
            for a, b in zip([0, *ends], ends, strict=False)
        )
        return Task(
            train=train,
            val=val,
            test=test,
            classes=self.classes,
            biases=self.biases,
            aligned=self.aligned,
        )

    def note(self) -> str:
        """Say which bias values are aligned with which class, and why."""
        words = [
            f"{label} with {few(_where(row, self.biases), 4, ' or ')}"
            for label, row in zip(self.classes, self.aligned, strict=True)
        ]
        return f"Aligned ({self.how}): {few(words, 12, '; ')}."


def plan(rows: list[Row], source: Source, labels: Collection[str], *, splits: bool) -> Plan:
    """Name classes and biases, sorted, and say which are aligned.

    `rows` stand in the order of their splits. `labels`: every class there must be; `splits`:
    whether rows said their splits. Raises `DataError` for what no task can be made of.
    """
    import torch

    if lost := sorted(set(labels) - {row.label for row in rows}):
        raise DataError(f"Class {lost[0]!r} has no image left: mend its images, or remove them all")
    counts = Counter(row.split for row in rows)
    if empty := [name for name in PERCENT if not counts[name]]:
        raise DataError(_empty_split(empty[0], source, splits=splits))
    classes = _ordered({(row.label,) for row in rows})
    biases = _ordered({row.bias for row in rows})
    class_names = tuple(label for (label,) in classes)
    bias_names = tuple(_joined(values, source.bias) for values in biases)
    _check_names(class_names, bias_names, source)
    numbers = {values: i for i, values in enumerate(biases)}
    y_of = {label: i for i, label in enumerate(class_names)}
    y = torch.tensor([y_of[row.label] for row in rows])  # (N,)
    bias = torch.tensor([numbers[row.bias] for row in rows])  # (N,)
    trained = counts["train"]
    table = torch.zeros(len(classes), len(biases), dtype=torch.int64)  # training samples
    table.index_put_((y[:trained], bias[:trained]), torch.tensor(1), accumulate=True)
    if untrained := [c for c, n in zip(class_names, table.sum(dim=1), strict=True) if n == 0]:
        raise DataError(f"Class {untrained[0]!r} has no training image: add some, or remove it")
    aligned, how = _alignment(table, class_names, biases, source)
    if bool(aligned[y, bias].all()):
        raise DataError(
            "Every image has a bias that is aligned with its class, so nothing conflicts: add "
            "images of other combinations, or say which are aligned with --aligned"
        )
    return Plan(
        class_names, bias_names, y, bias, (trained, counts["val"], counts["test"]), aligned, how
    )


def _empty_split(name: str, source: Source, *, splits: bool) -> str:
    if not splits:
        return f"The {name} split has no image: there are too few to split, add some"
    way = "leave out --split" if source.table is not None else "take the folders of splits away"
    return f"The {name} split has no image: add some, or {way}, and the images are split here"


def _check_names(classes: tuple[str, ...], biases: tuple[str, ...], source: Source) -> None:
    label, bias = source.label or "CLASS", ", ".join(source.bias) or "BIAS"
    for what, column, values in (("class", label, classes), ("bias value", bias, biases)):
        if len(values) < 2:
            raise DataError(
                f"There is one {what} only, {values[0]!r} ({column}): it takes two at least"
            )
    if len(set(biases)) < len(biases):
        raise DataError("Two bias values read the same when joined: take ',' and '=' out of them")
    if len(classes) * len(biases) > MOST_GROUPS:
        raise DataError(
            f"{len(classes):,} classes ({label}) and {len(biases):,} bias values ({bias}) make "
            f"more than {MOST_GROUPS:,} groups: name columns of fewer values"
        )


def _ordered(values: Collection[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Sort by column after column, one that holds nothing but numbers by their size."""
    numeric = [all(_is_number(v) for v in column) for column in zip(*values, strict=True)]
    return sorted(
        values,
        key=lambda row: [
            (float(v) if number else 0.0, v) for v, number in zip(row, numeric, strict=True)
        ],
    )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _joined(values: tuple[str, ...], columns: tuple[str, ...]) -> str:
    if len(values) == 1:
        return values[0]
    return ",".join(f"{column}={value}" for column, value in zip(columns, values, strict=True))


def _alignment(
    counts: Tensor, classes: tuple[str, ...], biases: list[tuple[str, ...]], source: Source
) -> tuple[Tensor, str]:
    """Return (C, B) bool from (C, B) training counts or from what was said, and how it was found.

    By default a bias value is aligned with a class if training has it with that class more often
    than by chance: P(bias | class) > P(bias).
    """
    if source.aligned is not None:
        aligned, how = _read_aligned(source.aligned, classes, biases, source.bias), "as told"
        way = "name one in --aligned"
    else:
        chance = counts.sum(dim=1, keepdim=True) * counts.sum(dim=0, keepdim=True)
        aligned = counts * counts.sum() > chance
        how = "in training more often with the class than by chance, P(bias | class) > P(bias)"
        way = "training has all with it as often as by chance; --aligned says which go with it"
    if lone := [c for c, row in zip(classes, aligned, strict=True) if not row.any()]:
        raise DataError(f"Class {lone[0]!r} has no aligned bias value: {way}")
    return aligned, how


def _read_aligned(
    said: str, classes: tuple[str, ...], biases: list[tuple[str, ...]], columns: tuple[str, ...]
) -> Tensor:
    """Read "class:bias,class:bias"; of several bias columns, "class:column=value" is enough.

    Names may hold commas and colons, so they are looked for, the longest first, instead of split.
    """
    import torch

    values: dict[str, set[int]] = {}
    for i, combined in enumerate(biases):
        parts = [f"{c}={v}" for c, v in zip(columns, combined, strict=False)]
        for text in {_joined(combined, columns), *(parts if len(parts) > 1 else ())}:
            values.setdefault(text, set()).add(i)
    aligned = torch.zeros(len(classes), len(biases), dtype=torch.bool)
    rest = said.strip()
    while rest:
        found = _first_pair(rest, classes, values)
        if found is None:
            raise OptionError(_no_pair(rest, classes, list(values)))
        label, bias = found
        aligned[classes.index(label), sorted(values[bias])] = True
        rest = rest[len(label) + 1 + len(bias) :].lstrip(", ")
    return aligned


def _first_pair(
    text: str, classes: Collection[str], biases: Collection[str]
) -> tuple[str, str] | None:
    """Find the longest "class:bias" with which a text begins and after which it ends or goes on."""
    pairs = [
        (label, bias)
        for label in classes
        if text.startswith(f"{label}:")
        for bias in biases
        if text.startswith(bias, len(label) + 1)
        and text[len(label) + 1 + len(bias) :].lstrip()[:1] in {"", ","}
    ]
    return max(pairs, key=lambda pair: len(pair[0]) + len(pair[1]), default=None)


def _no_pair(rest: str, classes: Sequence[str], biases: Sequence[str]) -> str:
    pair = rest.partition(",")[0]
    label, _, bias = pair.partition(":")
    guess = suggestion(bias, biases) if label in classes else suggestion(label, classes)
    return (
        f"--aligned: {pair!r} is no CLASS:BIAS.{guess} "
        f"Classes: {few(classes)}; biases: {few(biases)}"
    )


def _where(flags: Tensor, names: Sequence[str]) -> list[str]:
    return [name for name, flag in zip(names, flags.tolist(), strict=True) if flag]


def oddities(task: Task) -> list[str]:
    """Say which groups a split lacks or hardly has, and which names differ in case only."""
    counts = {name: task.group_counts(split) for name, split in task.splits().items()}
    anywhere = sum(counts.values()) > 0
    found = []
    for name, count in counts.items():
        for which, what in (
            ((count == 0) & anywhere, "no image"),
            ((count > 0) & (count < TINY), f"fewer than {TINY} images"),
        ):
            if bool(which.any()):
                groups = [divmod(g, len(task.biases)) for g in which.nonzero()[:, 0].tolist()]
                named = [f"{task.classes[c]} with {task.biases[b]}" for c, b in groups]
                found.append(f"{name} has {what} of {few(named, 5, '; ')}")
    for what, names in (("classes", task.classes), ("bias values", task.biases)):
        lower = Counter(name.lower() for name in names)
        if alike := [name for name in names if lower[name.lower()] > 1]:
            found.append(f"Some {what} differ in case only: {few(alike)}")
    return found


def few(words: Sequence[str], most: int = 10, between: str = ", ") -> str:
    """Join words, those beyond the first as a number."""
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return between.join(words[:most]) + more
