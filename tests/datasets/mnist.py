"""MNIST for the tests: made-up files, or the real ones if they exist."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest


def write_mnist(root: Path, train: int = 5200, test: int = 200) -> Path:
    """Write MNIST's four files with made-up images."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, n in (("train", train), ("t10k", test)):
        images = bytes((i + j) % 256 for i in range(n) for j in range(784))
        header = struct.pack(">iiii", 0x803, n, 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images)
        labels = struct.pack(">ii", 0x801, n) + bytes(i % 10 for i in range(n))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)
    return root


MNIST_ROOT = Path(os.environ.get("DEBIASBENCH_TEST_DATA", "data"))
real_mnist = pytest.mark.skipif(
    not (MNIST_ROOT / "MNIST" / "raw").is_dir(),
    reason="no real MNIST: put MNIST/raw into the folder DEBIASBENCH_TEST_DATA names",
)
