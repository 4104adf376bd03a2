"""Speed of decoding a folder of images, compared with Pillow alone in the same number of processes.

    python benchmarks/decoding.py [--images 20000] [--format png] [--workers 2] [--rounds 5]

Creates images of 128x128 first. Pillow is timed in three ways: "read" opens and decodes images,
"pixels" also converts them to an array, "kept" also copies them to memory that other processes can
read, as `decode` does. The ratio is (images/s of `decode`) / (images/s of Pillow), the median over
rounds.
"""

from __future__ import annotations

import argparse
import mmap
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

SIDE = 128
WAYS = ("read", "pixels", "kept")


def make(folder: Path, count: int, kind: str) -> None:
    """Write smooth images with a little noise, which compress like photographs."""
    for i in range(count):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(int)
        grain = rng.integers(-4, 5, (SIDE, SIDE, 1))
        image = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
        image.save(folder / f"{i:06d}.{kind}")


def in_processes(work: Callable[[int], None], workers: int) -> float:
    """Return the seconds of `work(0)` to `work(workers - 1)`, each in its own process."""
    processes = [get_context("fork").Process(target=work, args=(k,)) for k in range(workers)]
    begun = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return time.perf_counter() - begun


def pillow(files: Sequence[str], way: str, workers: int) -> float:
    """Return the seconds that Pillow alone takes."""
    image_bytes = 3 * SIDE * SIDE
    kept = np.frombuffer(mmap.mmap(-1, len(files) * image_bytes), np.uint8)
    kept = kept.reshape(len(files), SIDE, SIDE, 3)

    def work(first: int) -> None:
        for i in range(first, len(files), workers):
            with Image.open(files[i]) as image:
                if way == "read":
                    image.load()
                elif way == "pixels":
                    np.asarray(image)
                else:
                    kept[i] = np.asarray(image)

    return in_processes(work, workers)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--format", choices=["png", "jpg"], default="png")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()

    if args.way:  # in a process without torch, in which nothing slows Pillow down
        files = [str(path) for path in sorted(args.folder.iterdir())]
        print(pillow(files, args.way, args.workers))
        return

    from debiasbench.files.images import decode

    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), args.images, args.format)
        paths = sorted(Path(folder).iterdir())
        seconds: dict[str, list[float]] = {way: [] for way in ("decode", *WAYS)}
        for _ in range(args.rounds):
            begun = time.perf_counter()
            decode(paths, workers=args.workers)
            seconds["decode"].append(time.perf_counter() - begun)
            for way in WAYS:
                command = [sys.executable, __file__, "--folder", folder, "--way", way]
                out = subprocess.check_output([*command, "--workers", str(args.workers)])
                seconds[way].append(float(out))
        size = sum(path.stat().st_size for path in paths) / len(paths)
    print(
        f"{args.images} {args.format} images of {SIDE}x{SIDE}, {size / 1000:.0f} kB each, "
        f"{args.workers} processes, {args.rounds} rounds; Pillow {version('pillow')}, "
        f"Python {platform.python_version()}"
    )
    print(f"{'decode':8} {args.images / median(seconds['decode']):7.0f} images/s")
    for way in WAYS:
        ratios = [p / d for p, d in zip(seconds[way], seconds["decode"], strict=True)]
        print(
            f"{way:8} {args.images / median(seconds[way]):7.0f} images/s   decode reaches "
            f"{median(ratios):.3f} of this ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
