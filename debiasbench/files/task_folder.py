"""A task as a folder of arrays with checksums, written once and read memory-mapped."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from debiasbench.common.atomic import write_whole
from debiasbench.common.errors import DataError
from debiasbench.common.regular import check_regular
from debiasbench.core.data import Split, Task
from debiasbench.core.inputs import is_mapping, tensors
from debiasbench.core.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from debiasbench.core.inputs import Inputs

FORMAT = 1
FACTS = "task.json"
CHUNK = 1 << 24  # bytes hashed and written at a time, so that no array is copied as a whole


class DamagedTask(DataError):  # noqa: N818 - the name is the problem
    """A folder does not contain a complete, unchanged task."""


def save(task: Task, folder: Path, more: Mapping[str, object] | None = None) -> str:
    """Write a task into an empty folder and return its digest, a SHA-256 in hex.

    `more`: additional facts of the caller, returned by `facts`. `Task.augment` is not written. The
    description is written last, so an incomplete folder is never taken for a task.
    """
    is_text = isinstance(task.train.x, Texts)
    inputs = list(tensors(task.train.x)) if is_text or is_mapping(task.train.x) else None
    arrays = {}
    for name, split in task.splits().items():
        values = [*tensors(split.x).values(), split.y, split.bias]
        for file, value in zip(_files(name, inputs), values, strict=True):
            arrays[file] = _write(value, folder / file)
    facts: dict[str, object] = {
        "format": FORMAT,
        "arrays": arrays,
        "classes": task.classes,
        "biases": task.biases,
        "aligned": task.aligned.tolist(),
        "metric": task.metric,
        "select": task.select,
        "mean": task.mean,
        "std": task.std,
    }
    if inputs is not None:
        facts["inputs"] = inputs  # names of the tensors of a mapping, in the order of their files
    if is_text:
        facts["texts"] = True
    digest = _digest(facts)
    text = json.dumps({**facts, "digest": digest, "more": dict(more or {})}, indent=1)
    write_whole(folder / FACTS, text.encode())
    return digest


def load(folder: Path, *, verify: bool = True) -> Task:
    """Read a task; its images stay on the disk until they are used.

    `verify`: compare every byte with its checksum, at about one gigabyte per second.
    Raises `DamagedTask` with the first file that differs from what was written.
    """
    known = facts(folder)
    inputs = known.get("inputs")
    splits = {}
    for name in ("train", "val", "test"):
        files = _files(name, inputs)
        *x, y, bias = (_read(folder / file, known, verify=verify) for file in files)
        named: Inputs | Texts = x[0] if inputs is None else dict(zip(inputs, x, strict=True))
        if known.get("texts"):
            named = Texts(*x)
        splits[name] = Split(named, y, bias, num_biases=len(known["biases"]))
    return Task(
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        classes=tuple(known["classes"]),
        biases=tuple(known["biases"]),
        aligned=torch.tensor(known["aligned"], dtype=torch.bool),
        metric=known["metric"],
        select=known["select"],
        mean=_floats(known["mean"]),
        std=_floats(known["std"]),
    )


def facts(folder: Path) -> dict[str, Any]:
    """Return the description of a task: names, checksums, `digest` and `more`.

    Raises `DamagedTask`.
    """
    try:
        check_regular(folder / FACTS)
        known: dict[str, Any] = json.loads((folder / FACTS).read_text("utf-8"))
        whole = known["format"] == FORMAT and known["digest"] == _digest(known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedTask(f"{folder / FACTS} is not a description of a task ({error})") from error
    if not whole:
        raise DamagedTask(
            f"{folder / FACTS} was changed, or was written by another version of debiasbench"
        )
    return known


def _files(split: str, inputs: list[str] | None) -> list[str]:
    """Return the files of a split: of its inputs, by number where they are a mapping, and labels.

    Names of inputs are free text, so they do not become parts of file names.
    """
    fields = ["x"] if inputs is None else [f"x-{i}" for i in range(len(inputs))]
    return [f"{split}-{field}.npy" for field in (*fields, "y", "bias")]


def _digest(known: Mapping[str, object]) -> str:
    described = {k: v for k, v in known.items() if k not in {"digest", "more"}}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _write(values: Tensor, path: Path) -> dict[str, object]:
    array = values.contiguous().numpy()
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, np.lib.format.header_data_from_array_1_0(array))
        sha = hashlib.sha256()
        for part in _parts(array):
            sha.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": sha.hexdigest(), "shape": array.shape, "bytes": path.stat().st_size}


def _read(path: Path, known: Mapping[str, Any], *, verify: bool) -> Tensor:
    written = known["arrays"][path.name]
    try:
        if path.stat().st_size != written["bytes"]:
            raise DamagedTask(
                f"{path} has {path.stat().st_size} bytes instead of {written['bytes']}"
            )
        array = _mapped(path)
    except (OSError, ValueError) as error:
        raise DamagedTask(f"{path} cannot be read ({error})") from error
    if verify:
        sha = hashlib.sha256()
        for part in _parts(array):
            sha.update(part)
        if sha.hexdigest() != written["sha256"]:
            raise DamagedTask(f"{path} was changed after it was written: its checksum differs")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _mapped(path: Path) -> NDArray[Any]:
    """Map a file copy-on-write; a file larger than the memory is mapped read-only."""
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)  # type: ignore[no-any-return]
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _parts(array: NDArray[Any]) -> Iterator[memoryview]:
    """Yield the bytes of an array in chunks, without copying."""
    flat = array.reshape(-1).view(np.uint8)
    return (flat[at : at + CHUNK].data for at in range(0, len(flat), CHUNK))


def _floats(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)
