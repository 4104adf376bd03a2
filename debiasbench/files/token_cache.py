"""Texts are tokenised once for each tokenizer, and kept memory-mapped under the data root."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from debiasbench.common.canonical import digest
from debiasbench.common.errors import DataError
from debiasbench.common.locks import locked
from debiasbench.core.data import Split
from debiasbench.core.inputs import LENGTH
from debiasbench.core.texts import Texts
from debiasbench.files.task_cache import FOLDER, read_folder, write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from debiasbench.core.data import Task
    from debiasbench.core.tokenizer import Tokenizer

CHUNK = 4096  # samples that are tokenised at a time


def tokenised(task: Task, fingerprint: str, tokenizer: Tokenizer, root: Path) -> Task:
    """Return a task of texts with the tensors of a tokenizer instead of them.

    `fingerprint`: of the task.

    It is kept in the cache of the data root, which exists; where it cannot be written, the texts
    are tokenised each time, with a warning. Raises `DataError`.
    """
    key = {"texts": fingerprint, "tokenizer": dict(tokenizer.key)}
    folder = root / FOLDER / f"tokens-{digest(key)[:16]}"
    if (kept := read_folder(folder, warn=True)) is not None:
        return _of(kept, task)
    with ExitStack() as stack:
        try:
            if not root.is_dir():
                raise NotADirectoryError(20, "There is no such folder", str(root))
            stack.enter_context(locked(folder.parent, folder.name, purpose="tokenised texts"))
        except OSError as error:
            return _uncached(_tokenised(task, tokenizer), root, error)
        if (kept := read_folder(folder)) is not None:  # another process was faster
            return _of(kept, task)
        made = _tokenised(task, tokenizer)
        try:
            write_folder(made, folder, {"dataset": "tokens", "key": {**key, "options": {}}})
        except OSError as error:
            return _uncached(made, root, error)
        kept = read_folder(folder)
        return made if kept is None else _of(kept, task)


def _of(kept: Task, task: Task) -> Task:
    """Return cached tokens with the metric and the selection rule of `task`."""
    return replace(kept, metric=task.metric, select=task.select)


def _tokenised(task: Task, tokenizer: Tokenizer) -> Task:
    splits = task.splits()
    parts = {name: _parts(split.x, tokenizer) for name, split in splits.items()}
    longest = max(
        v.shape[1] for some in parts.values() for one in some for v in one.values() if v.dim() > 1
    )
    made = {}
    for name, split in splits.items():
        x = {key: _joined([one[key] for one in parts[name]], longest) for key in parts[name][0]}
        made[name] = Split(x, split.y, split.bias, split.num_biases)
    return replace(task, train=made["train"], val=made["val"], test=made["test"])


def _parts(x: object, tokenizer: Tokenizer) -> list[dict[str, Tensor]]:
    """Tokenise the texts of a split, some at a time; raises `DataError`."""
    assert isinstance(x, Texts)
    found = []
    for first in range(0, len(x), CHUNK):
        samples = list(x.between(first, min(first + CHUNK, len(x))))
        one = dict(tokenizer(samples))
        if LENGTH not in one or any(len(v) != len(samples) for v in one.values()):
            raise DataError(
                f"The tokenizer returned {sorted(one)} for {len(samples)} samples, must return "
                f"tensors with a row for each of them, one of them {LENGTH!r}"
            )
        longest = int(one[LENGTH].max())
        if int(one[LENGTH].min()) < 1:
            raise DataError("The tokenizer makes no token of one of the texts")
        # memory is only kept for what is in use
        found.append({k: v[:, :longest].clone() if v.dim() > 1 else v for k, v in one.items()})
    return found


def _joined(parts: list[Tensor], longest: int) -> Tensor:
    """Return the parts as one tensor; sequences are padded with 0, which no network reads."""
    import torch

    if parts[0].dim() == 1:
        return torch.cat(parts)
    whole = parts[0].new_zeros(sum(map(len, parts)), longest)
    at = 0
    for part in parts:
        whole[at : at + len(part), : part.shape[1]] = part
        at += len(part)
    return whole


def _uncached(task: Task, root: Path, error: OSError) -> Task:
    warnings.warn(
        f"The cache {root / FOLDER} cannot be written ({error.strerror or error}), so texts are "
        "tokenised again in every run",
        stacklevel=3,
    )
    return task
