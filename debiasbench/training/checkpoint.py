"""Save state to one file: tensors and plain values, with a checksum, atomically, without pickle."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors

from debiasbench.common.atomic import write_whole
from debiasbench.common.errors import DebiasbenchError

if TYPE_CHECKING:
    from torch import Tensor

MAGIC = b"debiasbench checkpoint 1\n"


class DamagedCheckpoint(DebiasbenchError):  # noqa: N818 - the name is clear without "Error"
    """A file that is not a complete checkpoint of this version; its path begins the message."""

    exit_code = 9


def dumps(state: object) -> bytes:
    """Write dicts, lists, tuples, strings, numbers, None and tensors of any device as bytes.

    A tensor that occurs several times is written once. Raises `TypeError` for other values; the
    message names their position in the state.
    """
    tensors: dict[str, Tensor] = {}
    tree = _encode(state, tensors, {}, "state")
    text = json.dumps(tree).encode()
    body = struct.pack("<Q", len(text)) + text + safetensors.save(tensors)
    return MAGIC + hashlib.sha256(body).digest() + body


def loads(content: bytes) -> Any:
    """Read what `dumps` wrote, its tensors on the CPU; raises `ValueError` for anything else."""
    head, body = content[: len(MAGIC) + 32], content[len(MAGIC) + 32 :]
    if not head.startswith(MAGIC):
        raise ValueError("it is not a checkpoint of this version")
    if hashlib.sha256(body).digest() != head[len(MAGIC) :]:
        raise ValueError("its checksum is wrong: it is truncated or was changed")
    (length,) = struct.unpack_from("<Q", body)
    try:
        tensors = safetensors.load(body[8 + length :])
        return _decode(json.loads(body[8 : 8 + length]), tensors)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"it cannot be read ({error})") from error


def save(path: Path, state: object) -> None:
    """Write a file atomically, and keep the file that it replaces as `previous(path)`.

    Raises `OSError`.
    """
    write_whole(path, dumps(state), before=previous(path))


def load(path: Path) -> Any:
    """Read a file; raises `FileNotFoundError` and `DamagedCheckpoint`."""
    try:
        return loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError, struct.error) as error:
        raise DamagedCheckpoint(f"{path}: {error}") from error


def outline(path: Path) -> Any:
    """Read a file without its tensors, which become None, and without verifying its checksum.

    Raises `FileNotFoundError` and `DamagedCheckpoint`.
    """
    start = len(MAGIC) + 32  # magic and checksum
    try:
        with path.open("rb") as file:
            head = file.read(start + 8)
            (length,) = struct.unpack_from("<Q", head, start)
            known = head.startswith(MAGIC) and length <= path.stat().st_size
            return _decode(json.loads(file.read(length) if known else b""), None)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedCheckpoint(f"{path}: {error}") from error
    except (ValueError, TypeError, RecursionError, struct.error) as error:
        raise DamagedCheckpoint(
            f"{path}: it is damaged, or not a checkpoint of this version"
        ) from error


def previous(path: Path) -> Path:
    """Return the path of the checkpoint before the last one."""
    return path.with_name(f"{path.name}.previous")


def _encode(
    value: object, tensors: dict[str, Tensor], seen: dict[int, str], position: str
) -> object:
    """Return a value as JSON, with [kind, content] for the types that JSON does not have."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.Tensor):
        if id(value) not in seen:
            seen[id(value)] = name = str(len(tensors))
            tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return ["tensor", seen[id(value)]]
    if isinstance(value, dict):
        pairs = [
            [_key(k, position), _encode(v, tensors, seen, f"{position}[{k!r}]")]
            for k, v in value.items()
        ]
        return ["dict", pairs]
    if isinstance(value, (list, tuple)):
        parts = [_encode(v, tensors, seen, f"{position}[{i}]") for i, v in enumerate(value)]
        return ["list" if isinstance(value, list) else "tuple", parts]
    raise TypeError(f"{position} is a {type(value).__name__}, which a checkpoint cannot contain")


def _key(key: object, position: str) -> str | int:
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return key
    raise TypeError(f"{position} has the key {key!r}: keys must be strings or integers")


def _decode(tree: Any, tensors: dict[str, Tensor] | None) -> Any:
    if not isinstance(tree, list):
        return tree
    kind, content = tree
    match kind:
        case "tensor":
            return None if tensors is None else tensors[content]
        case "dict":
            return {key: _decode(value, tensors) for key, value in content}
        case "list":
            return [_decode(value, tensors) for value in content]
        case "tuple":
            return tuple(_decode(value, tensors) for value in content)
    raise ValueError(f"it contains {kind!r}, which this version does not know")
