"""A contact sheet with aligned and conflicting samples of a data set, and a table of its groups."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw

from debiasbench.common.errors import DataError
from debiasbench.core.inputs import is_mapping, single
from debiasbench.core.texts import Texts
from debiasbench.files.lettering import Letters

if TYPE_CHECKING:
    from debiasbench.core.data import Split, Task

INK, PALE, PAPER = (20, 20, 20), (120, 120, 120), (255, 255, 255)
LABEL, LINE, GAP = 13, 16, 4  # pixels: font size, line height, gap
MOST_NAME = 200  # pixels of the name of a class


@dataclass(frozen=True)
class Grid:
    """Positions on the sheet in pixels.

    `side`: size of a sample; `left`: left margin; `columns`: samples of each kind in a row.
    """

    side: int
    left: int
    columns: int

    def x(self, kind: int, column: int) -> int:
        """Return the left edge of a sample; kind 0 is aligned, 1 is conflicting."""
        return self.left + (kind * self.columns + column) * (self.side + GAP) + kind * 6 * GAP

    def y(self, row: int) -> int:
        """Return the upper edge of a row."""
        return 3 * LINE + row * (self.side + LINE + GAP)


def contact_sheet(task: Task, split: Split, title: str, *, columns: int = 6) -> Image.Image:
    """Draw one row per class, with aligned samples on the left and conflicting ones on the right.

    The bias value is below each sample, the number of samples of each kind is beside each row, and
    the number of samples per bias value is at the bottom. Conflicting samples show as many
    different bias values as possible. Characters that no font has are a warning. Raises `DataError`
    for a task without images.
    """
    x = single(split.x, "A contact sheet")
    if not is_drawable(split):
        raise DataError(
            f"Samples of shape {tuple(x.shape[1:])} and type "
            f"{str(x.dtype).removeprefix('torch.')} cannot be drawn: they are not uint8 "
            "images with 1 or 3 channels"
        )
    side = max(64, min(128, x.shape[-1]))
    # measured on an empty picture, because the size of the sheet depends on the names
    probe = Letters(ImageDraw.Draw(Image.new("RGB", (1, 1))), LABEL)
    widest = min(MOST_NAME, max(probe.width(name) for name in (*task.classes, "class")))
    grid = Grid(side=side, left=3 * GAP + widest, columns=columns)
    footer = LINE * (2 + -(-len(task.biases) // 6))
    size = (grid.x(1, columns) + 22 * 8, grid.y(len(task.classes)) + footer)
    sheet = Image.new("RGB", size, PAPER)
    letters = Letters(ImageDraw.Draw(sheet), LABEL)
    letters.write((GAP, GAP), title, INK)
    conflict = task.conflict(split)
    for kind, name in enumerate(("aligned", "conflicting")):
        count = int((conflict == bool(kind)).sum())
        share = 100 * count / len(split)
        letters.write((grid.x(kind, 0), LINE + 2 * GAP), f"{name}: {count:,} ({share:.3g} %)", INK)
    for c, name in enumerate(task.classes):
        middle = grid.y(c) + side // 2 - LABEL
        letters.write((GAP, middle), name, INK, widest)
        for kind, words in enumerate(("aligned", "conflicting")):
            members = ((split.y == c) & (conflict == bool(kind))).nonzero()[:, 0]
            beside = (grid.x(1, columns) + GAP, middle + kind * LINE)
            letters.write(beside, f"{len(members):,} {words}", INK)
            for column, i in enumerate(_varied(split.bias[members], columns).tolist()):
                index = int(members[i])
                at = (grid.x(kind, column), grid.y(c))
                sheet.paste(_picture(split, index, side), at)
                bias = task.biases[int(split.bias[index])]
                letters.write((at[0], at[1] + side), bias, PALE, side)
    _write_biases(letters, task, split, grid.y(len(task.classes)), size[0])
    if problem := letters.problem():
        warnings.warn(problem, stacklevel=2)
    return sheet


def is_drawable(split: Split) -> bool:
    """Return whether samples are uint8 images with 1 or 3 channels."""
    if is_mapping(split.x) or isinstance(split.x, Texts):
        return False
    x = single(split.x, "A contact sheet")
    return x.dtype == torch.uint8 and x.dim() == 4 and x.shape[1] in {1, 3}


def described(task: Task) -> str:
    """Describe what samples are, such as "3x28x28 samples"."""
    shape = task.shape
    if isinstance(task.train.x, Texts):
        number = task.train.x.number
        return {1: "texts", 2: "pairs of texts"}.get(number, f"samples of {number} texts")
    if shape.inputs:
        sizes = ", ".join(f"{name} {_times(size)}" for name, size in shape.inputs.items())
        return f"samples with {sizes}"
    return f"{_times(shape.input)} samples"


def _times(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size)) or "1"


def group_table(task: Task) -> str:
    """Return a table of the samples per group in every split; * marks aligned groups.

    Rows are classes, columns are bias values. With more than ten bias values, there are only two
    columns: aligned and conflicting.
    """
    from tabulate import tabulate

    is_short = len(task.biases) <= 10
    head = [*task.biases] if is_short else ["aligned", "conflicting"]
    rows = []
    for name, split in task.splits().items():
        counts = task.group_counts(split).view(len(task.classes), -1)
        for c, label in enumerate(task.classes):
            flags = task.aligned[c]
            cells = (
                [
                    f"{n:,}{' *' if a else '  '}"
                    for n, a in zip(counts[c].tolist(), flags, strict=True)
                ]
                if is_short
                else [f"{int(counts[c][part].sum()):,}" for part in (flags, ~flags)]
            )
            rows.append([name if c == 0 else "", label, *cells])
    sums = [
        f"{name} {len(split):,} ({100 * task.conflict(split).double().mean().item():.3g} %)"
        for name, split in task.splits().items()
    ]
    note = f"\n{'* bias-aligned; s' if is_short else 'S'}amples (conflicting): {', '.join(sums)}"
    align = ("left", "left", *["right"] * len(head))
    table = tabulate(
        rows, ("split", "class", *head), "simple", disable_numparse=True, colalign=align
    )
    return table + note


def _varied(bias: torch.Tensor, count: int) -> torch.Tensor:
    """Return the positions of at most `count` samples, first one of each bias value."""
    order = torch.argsort(bias, stable=True)
    values = bias[order]
    first = torch.ones(len(values), dtype=torch.bool)
    first[1:] = values[1:] != values[:-1]
    ones = order[first]
    if len(ones) > count:  # spread evenly over the bias values
        return ones[torch.linspace(0, len(ones) - 1, count).round().long()]
    rest = torch.ones(len(bias), dtype=torch.bool)
    rest[ones] = False
    return torch.cat([ones, rest.nonzero()[: count - len(ones), 0]])


def _picture(split: Split, index: int, side: int) -> Image.Image:
    pixels = single(split.x, "A contact sheet")[index].permute(1, 2, 0).numpy()  # (H, W, C)
    picture = Image.fromarray(
        np.ascontiguousarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels)
    )
    enlarging = max(pixels.shape[:2]) < side
    picture = picture.convert("RGB")
    scale = side / max(picture.size)
    size = tuple(max(1, round(scale * edge)) for edge in picture.size)
    resampling = Image.Resampling.NEAREST if enlarging else Image.Resampling.BILINEAR
    return picture.resize((size[0], size[1]), resampling)


def _write_biases(letters: Letters, task: Task, split: Split, top: int, width: int) -> None:
    counts = split.bias.bincount(minlength=len(task.biases)).tolist()
    words = [f"{name}: {n:,}" for name, n in zip(task.biases, counts, strict=True)]
    lines = ["   ".join(words[i : i + 6]) for i in range(0, len(words), 6)]
    for row, line in enumerate(["samples by bias value", *lines]):
        letters.write((GAP, top + LINE // 2 + row * LINE), line, INK, width - 2 * GAP)
