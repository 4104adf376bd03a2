"""Texts with their split, class and bias, packed into three splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError
from debiasbench.core.data import Split
from debiasbench.core.texts import Texts
from debiasbench.datasets._table import AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Passage:
    """The texts of a sample and its labels; `split` is an index into `SPLITS`."""

    texts: tuple[str, ...]
    split: int
    y: int
    bias: int


def splits(
    passages: Iterable[Passage], *, num_biases: int, where: Path
) -> tuple[Split, Split, Split]:
    """Pack passages into train, val and test, each in the given order.

    `where`: the file that lists them, for error messages. Raises `DataError` for a split without
    samples.
    """
    import torch

    texts: tuple[list[tuple[str, ...]], ...] = ([], [], [])
    labels: tuple[list[tuple[int, int]], ...] = ([], [], [])
    for passage in passages:
        texts[passage.split].append(passage.texts)
        labels[passage.split].append((passage.y, passage.bias))
    made = []
    for name, own, numbers in zip(SPLITS, texts, labels, strict=True):
        if not own:
            raise DataError(f"{where} has no {name} sample. Download the complete data set again")
        y, bias = torch.tensor(numbers).unbind(1)
        made.append(Split(Texts.of(own), y.contiguous(), bias.contiguous(), num_biases))
        own.clear()  # the packed texts are enough
    train, val, test = made
    return train, val, test


def filled(text: str, column: str, where: str) -> str:
    """Return a text that has more than spaces; raises `DataError` for one that has not."""
    if not text.strip():
        raise DataError(f"{where}: {column} is an empty text. {AGAIN}")
    return text
