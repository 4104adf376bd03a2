"""Forty images of birds with a table, and helpers to import them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from debiasbench.files import importing
from debiasbench.files.importing import BadRows, Finished, Source, import_data

HEAD = ("img", "species", "place")
LABELS, PLACES = ("land", "water"), ("field", "lake")


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def write(table: Path, rows: Sequence[Sequence[object]]) -> Path:
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t" if table.suffix == ".tsv" else ",").writerows(rows)
    return table


def bird_rows(count: int = 40) -> list[tuple[str, str, str]]:
    """Rows with equally many land and water birds; every fifth bird is in the wrong place."""
    rows = []
    for i in range(count):
        y = i % 2
        rows.append((f"{i:03}.png", LABELS[y], PLACES[y if i % 5 else 1 - y]))
    return rows


def birds_in(folder: Path) -> Source:
    """Write forty different images of 8x8 pixels, and a table of them."""
    rows = bird_rows()
    for i, (file, *_) in enumerate(rows):
        picture(folder / "birds" / file, (5 * i, 100, i))
    table = write(folder / "birds.csv", [HEAD, *rows])
    return Source(folder / "birds", table, "species", ("place",))


def changed(source: Source, rows: Sequence[Sequence[object]], **more: Any) -> Source:
    """Return the source with another table."""
    assert source.table is not None
    return replace(source, table=write(source.table, rows), **more)


def split_rows(count: int = 40) -> list[tuple[str, ...]]:
    """Return the rows of the birds with their splits."""
    names = ("train", "train", "val", "test")
    return [(*row, names[i // 10 % 4]) for i, row in enumerate(bird_rows(count))]


def problems(name: str, source: Source, root: Path) -> list[str]:
    with pytest.raises(BadRows) as caught:
        import_data(name, source, root)
    assert importing.names(root) == []
    return [str(problem) for problem in caught.value.problems]


def pixels(done: Finished) -> list[int]:
    """Return the red value of every image, by split."""
    return torch.cat([s.x[:, 0, 0, 0] for s in done.task.splits().values()]).tolist()


def leftovers(root: Path) -> list[str]:
    return sorted(p.name for p in (root / "imported").iterdir() if p.name != ".locks")
