"""Small image files for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = np.array([[[255, 0, 0], [0, 200, 0], [0, 0, 99]]], np.uint8).repeat(2, 0)  # (2, 3, 3)


def noise(seed: int, height: int = 12, width: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def folder_of(tmp_path: Path, count: int) -> list[Path]:
    return [saved(tmp_path / f"{i}.png", noise(i)) for i in range(count)]


def text(path: Path, content: str = "Not Found") -> Path:
    path.write_text(content)
    return path
