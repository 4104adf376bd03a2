"""From rows to the classes, bias values and splits of a task, and warnings about its groups."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError
from debiasbench.files.importing.alignment import align
from debiasbench.files.importing.vetting import PERCENT
from debiasbench.files.importing.wording import few, joined

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch import Tensor

    from debiasbench.core.data import Task
    from debiasbench.core.texts import Texts
    from debiasbench.files.importing.source import Row, Source

MOST_GROUPS = 100_000
TINY = 10  # samples; the accuracy on a smaller group is mostly noise


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything of a task except its inputs.

    `y`, `bias`: (N,) int64, in the order of the rows, which is sorted by split; `sizes`: number of
    samples in train, val and test; `aligned`: (C, B) bool; `rule`: how it was determined.
    """

    classes: tuple[str, ...]
    biases: tuple[str, ...]
    y: Tensor
    bias: Tensor
    sizes: tuple[int, int, int]
    aligned: Tensor
    rule: str

    def task(self, x: Tensor | Texts) -> Task:
        """Return the task with the inputs `x` of N samples in the order of the rows."""
        from debiasbench.core.data import Split, Task
        from debiasbench.core.texts import Texts

        ends = list(accumulate(self.sizes))
        train, val, test = (
            Split(
                x.part(a, b) if isinstance(x, Texts) else x[a:b],
                self.y[a:b],
                self.bias[a:b],
                num_biases=len(self.biases),
            )
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
        """Describe which bias values are aligned with which class, and why."""
        words = [
            f"{label} with {few(_marked(row, self.biases), 4, ' or ')}"
            for label, row in zip(self.classes, self.aligned, strict=True)
        ]
        return f"Aligned ({self.rule}): {few(words, 12, '; ')}."


def plan(rows: list[Row], source: Source, labels: Collection[str], *, splits: bool) -> Plan:
    """Name and sort classes and bias values, and determine which are aligned.

    `rows`: sorted by split. `labels`: the classes that must be present; `splits`: whether the rows
    came with splits. Raises `DataError` if the rows do not make a task.
    """
    import torch

    if absent := sorted(set(labels) - {row.label for row in rows}):
        raise DataError(
            f"Class {absent[0]!r} has no {source.noun} left. Fix its {source.noun}s, or remove the "
            "class"
        )
    counts = Counter(row.split for row in rows)
    if empty := [name for name in PERCENT if not counts[name]]:
        raise DataError(_empty_split(empty[0], source, splits=splits))
    classes = _ordered({(row.label,) for row in rows})
    biases = _ordered({row.bias for row in rows})
    class_names = tuple(label for (label,) in classes)
    bias_names = tuple(joined(values, source.bias) for values in biases)
    _check_names(class_names, bias_names, source)
    bias_index = {values: i for i, values in enumerate(biases)}
    class_index = {label: i for i, label in enumerate(class_names)}
    y = torch.tensor([class_index[row.label] for row in rows])  # (N,)
    bias = torch.tensor([bias_index[row.bias] for row in rows])  # (N,)
    trained = counts["train"]
    table = torch.zeros(len(classes), len(biases), dtype=torch.int64)  # training samples
    table.index_put_((y[:trained], bias[:trained]), torch.tensor(1), accumulate=True)
    if untrained := [c for c, n in zip(class_names, table.sum(dim=1), strict=True) if n == 0]:
        raise DataError(
            f"Class {untrained[0]!r} has no training {source.noun}. Add some, or remove the class"
        )
    aligned, rule = align(table, class_names, biases, source)
    if bool(aligned[y, bias].all()):
        raise DataError(
            f"All {source.noun}s are bias-aligned, so no group conflicts. Add {source.noun}s of "
            "other combinations, or define the aligned ones with --aligned"
        )
    return Plan(
        class_names, bias_names, y, bias, (trained, counts["val"], counts["test"]), aligned, rule
    )


def _empty_split(name: str, source: Source, *, splits: bool) -> str:
    noun = source.noun
    if not splits:
        return f"The {name} split has no {noun}: there are too few {noun}s to split. Add some"
    option = "leave out --split" if source.table is not None else "remove the folders of the splits"
    return (
        f"The {name} split has no {noun}. Add some, or {option} to split the {noun}s automatically"
    )


def _check_names(classes: tuple[str, ...], biases: tuple[str, ...], source: Source) -> None:
    label, bias = source.label or "CLASS", ", ".join(source.bias) or "BIAS"
    for kind, column, values in (("class", label, classes), ("bias value", bias, biases)):
        if len(values) < 2:
            raise DataError(
                f"There is only one {kind}, {values[0]!r} ({column}). At least two are needed"
            )
    if len(set(biases)) < len(biases):
        raise DataError(
            "Two combined bias values have the same name. Remove ',' and '=' from the bias columns"
        )
    if len(classes) * len(biases) > MOST_GROUPS:
        raise DataError(
            f"{len(classes):,} classes ({label}) and {len(biases):,} bias values ({bias}) make "
            f"more than {MOST_GROUPS:,} groups. Choose columns with fewer values"
        )


def _ordered(values: Collection[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Sort by column after column; a column of numbers only is sorted by their size."""
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


def _marked(flags: Tensor, names: Sequence[str]) -> list[str]:
    return [name for name, flag in zip(names, flags.tolist(), strict=True) if flag]


def oddities(task: Task, noun: str) -> list[str]:
    """Return warnings about absent and small groups."""
    import torch

    counts = {name: task.group_counts(split) for name, split in task.splits().items()}
    anywhere = torch.stack(list(counts.values())).sum(dim=0) > 0  # (G,) bool
    kinds = [(f"No split has {'an' if noun == 'image' else 'a'} {noun}", ~anywhere)]
    for name, count in counts.items():
        kinds.append((f"The {name} split has no {noun}", (count == 0) & anywhere))
        tiny = (count > 0) & (count < TINY)
        kinds.append((f"The {name} split has fewer than {TINY} {noun}s", tiny))
    warnings = []
    for words, flags in kinds:
        if bool(flags.any()):
            groups = [divmod(g, len(task.biases)) for g in flags.nonzero()[:, 0].tolist()]
            named = [f"{task.classes[c]} with {task.biases[b]}" for c, b in groups]
            warnings.append(f"{words} of {few(named, 5, '; ')}")
    return warnings
