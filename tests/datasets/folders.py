"""Write small copies of the data sets that others released as folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from debiasbench.core.data import Split, Task
from debiasbench.datasets._released import released


def picture(path: Path, value: int = 0, size: tuple[int, int] = (8, 8)) -> Path:
    """Write a grey image of one value, by which it can be recognised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


RELEASED = [
    # part, class folder, label, bias
    ("1pct/align", "0", 0, 0), ("1pct/align", "0", 0, 0), ("1pct/align", "1", 1, 1),
    ("1pct/conflict", "0", 0, 1), ("1pct/conflict", "1", 1, 0),
    ("1pct/valid", "", 0, 0), ("1pct/valid", "", 1, 0),
    ("test", "0", 0, 1), ("test", "1", 1, 1), ("test", "1", 1, 0),
]  # fmt: skip


def release(folder: Path, *, rename: Callable[[str], str] = str) -> Path:
    """Write the released layout: image i has the value 10 i; `rename` changes each path."""
    for i, (part, inner, label, bias) in enumerate(RELEASED):
        name = rename(str(Path(part, inner, f"{i}_{label}_{bias}.png")))
        picture(folder / name, 10 * i)
    return folder


def two(folder: Path, *, ratio: float = 0.01, shared_valid: bool = False) -> Task:
    return released(folder, ratio, classes=("a", "b"), biases=("c", "d"), shared_valid=shared_valid)


def values(split: Split) -> list[int]:
    """Return the grey values of the images of a split."""
    return split.x[:, 0, 0, 0].tolist()


def empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def bffhq(root: Path) -> Path:
    release(root / "bffhq", rename=lambda n: n.replace("1pct/valid", "valid").replace("1p", "0.5p"))
    return root


HEADER = "img_id,img_filename,y,split,place,place_filename"
BIRDS = [
    # y, split, place: not in the order of the splits
    (0, 2, 1), (0, 0, 0), (1, 0, 1), (1, 1, 0), (0, 0, 1), (1, 2, 1),
]  # fmt: skip


def bird(i: int) -> str:
    return f"00{i % 2}.Bird/b_{i}.png"


def table(rows: list[tuple[int, int, int]] = BIRDS) -> str:
    lines = [f"{i + 1},{bird(i)},{y},{s},{p},/l/{i}.jpg" for i, (y, s, p) in enumerate(rows)]
    return "\n".join([HEADER, *lines]) + "\n"


def waterbirds(root: Path, metadata: str | None = None, name: str = "waterbirds") -> Path:
    """Write Waterbirds: image i has the value 10 i; half of the images are wide."""
    for i in range(len(BIRDS)):
        picture(root / name / bird(i), 10 * i, (30, 20) if i % 2 else (20, 25))
    (root / name / "metadata.csv").write_bytes((metadata or table()).encode())
    return root


ATTRIBUTES = ["Attractive", "Blond_Hair", "Male", "Young"]
FACES = [
    # blond, male, young, partition
    (0, 1, 1, 0), (0, 1, 0, 0), (0, 1, 1, 0), (0, 0, 0, 0), (1, 0, 1, 0), (1, 0, 0, 0),
    (1, 1, 1, 0), (0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 2), (0, 0, 0, 2),
]  # fmt: skip


def face(i: int) -> str:
    return f"{i + 1:06d}.png"


def attribute_text(faces: list[tuple[int, ...]] = FACES) -> str:
    lines = [
        f"{face(i)} -1 {' '.join(f'{2 * value - 1:2d}' for value in values[:3])}"
        for i, values in enumerate(faces)
    ]
    return "\n".join([str(len(faces)), " ".join(ATTRIBUTES) + " ", *lines]) + "\n"


def partition_text() -> str:
    return "".join(f"{face(i)} {values[3]}\n" for i, values in enumerate(FACES))


def celeba(root: Path, images: str = "img_align_celeba") -> Path:
    """Write CelebA: face i has the value 10 i."""
    folder = root / "celeba"
    for i in range(len(FACES)):
        picture(folder / images / face(i), 10 * i, (178, 218))
    (folder / "list_attr_celeba.txt").write_text(attribute_text())
    (folder / "list_eval_partition.txt").write_text(partition_text())
    return root


def kaggle(root: Path) -> Path:
    """Write the same in the layout of Kaggle's archive."""
    folder = celeba(root, "img_align_celeba/img_align_celeba") / "celeba"
    for name, header in (
        ("list_attr_celeba", ["image_id", *ATTRIBUTES]),
        ("list_eval_partition", ["image_id", "partition"]),
    ):
        text = (folder / f"{name}.txt").read_text().splitlines()
        rows = [line.split() for line in text if line.startswith("0")]
        lines = [",".join(cells) for cells in (header, *rows)]
        (folder / f"{name}.csv").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
        (folder / f"{name}.txt").unlink()
    return root
