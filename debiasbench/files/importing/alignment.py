"""Which bias values are aligned with which class: read from --aligned, or counted in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError, OptionError, suggestion
from debiasbench.files.importing.wording import few, joined

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch import Tensor

    from debiasbench.files.importing.source import Source


def align(
    counts: Tensor, classes: tuple[str, ...], biases: list[tuple[str, ...]], source: Source
) -> tuple[Tensor, str]:
    """Return (C, B) bool, and the rule by which it was determined.

    `counts`: (C, B) training samples. By default a bias value is aligned with a class if it is more
    frequent in the class than overall in training: P(bias | class) > P(bias). Raises `DataError` if
    a class has no aligned bias value.
    """
    if source.aligned is not None:
        aligned = _read(source.aligned, classes, biases, source.bias)
        rule, advice = "as given by --aligned", ". Add one to --aligned"
    else:
        expected = counts.sum(dim=1, keepdim=True) * counts.sum(dim=0, keepdim=True)
        aligned = counts * counts.sum() > expected
        rule = "more frequent with the class than by chance in training, P(bias | class) > P(bias)"
        advice = (
            ": in training every bias value is as frequent with it as by chance. Define the "
            "aligned values with --aligned"
        )
    if lone := [c for c, row in zip(classes, aligned, strict=True) if not row.any()]:
        raise DataError(f"Class {lone[0]!r} has no aligned bias value{advice}")
    return aligned, rule


def _read(
    text: str, classes: tuple[str, ...], biases: list[tuple[str, ...]], columns: tuple[str, ...]
) -> Tensor:
    """Read "class:bias,class:bias"; with several bias columns, "class:column=value" is enough.

    Names may contain commas and colons. So the text is not split: known names are searched for,
    the longest first.
    """
    import torch

    values: dict[str, set[int]] = {}
    for i, combined in enumerate(biases):
        parts = [f"{c}={v}" for c, v in zip(columns, combined, strict=False)]
        for name in {joined(combined, columns), *(parts if len(parts) > 1 else ())}:
            values.setdefault(name, set()).add(i)
    aligned = torch.zeros(len(classes), len(biases), dtype=torch.bool)
    rest = text.strip()
    while rest:
        pair = _first_pair(rest, classes, values)
        if pair is None:
            raise OptionError(_no_pair(rest, classes, list(values)))
        label, bias = pair
        aligned[classes.index(label), sorted(values[bias])] = True
        rest = rest[len(label) + 1 + len(bias) :].lstrip(", ")
    return aligned


def _first_pair(
    text: str, classes: Collection[str], biases: Collection[str]
) -> tuple[str, str] | None:
    """Find the longest "class:bias" at the beginning of a text, before its end or a comma."""
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
        f"--aligned: {pair!r} is not a CLASS:BIAS pair.{guess} "
        f"Classes: {few(classes)}. Bias values: {few(biases)}"
    )
