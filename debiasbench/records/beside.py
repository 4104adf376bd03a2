"""The files beside a record: predictions and weights, each known by its SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import RecordError
from debiasbench.common.regular import read_regular
from debiasbench.records.inference import INFERRED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from debiasbench.records.record import Record, Result

    Predictions = Mapping[str, NDArray[Any]]

PREDICTIONS = ".predictions.safetensors"
WEIGHTS = ".weights.safetensors"
ARCHIVES: dict[Path, list[Path]] = {}  # folder of a copy -> archives that this process has read
HEADER = 1 << 20  # bytes, more than the header of any file of predictions


def around(folder: Path) -> list[Path]:
    """Return the folders in which files about the records in `folder` may lie, nearest first.

    The folder itself, the one above, and where `folder` is in a folder `records`, the one above
    that: `leaderboard` for `leaderboard/records/digits`. Not further, since any file may lie there.
    A copy of an archive stands for the folder of the archive.
    """
    real = folder.resolve()
    own = next((ARCHIVES[copy] for copy in (real, *real.parents) if copy in ARCHIVES), None)
    places = [] if own is None else [real]
    for place in [real] if own is None else [a.resolve().parent for a in own if a.is_file()]:
        places += [place, place.parent]
        if place.parent.name == "records":
            places.append(place.parent.parent)
    return list(dict.fromkeys(places))


def digest(predictions: Predictions) -> str:
    """Return the SHA-256 of the predictions file."""
    from safetensors.numpy import save

    return sha256(save(dict(predictions)))


def sha256(content: bytes) -> str:
    """Return the digest by which a record knows a file beside it."""
    return hashlib.sha256(content).hexdigest()


def prediction_key(epoch: int | None) -> str:
    """Name the predictions made after an epoch; rules that keep the same epoch share them."""
    return "final" if epoch is None else f"epoch_{epoch}"


def read_predictions(path: Path, record: Record, rule: str, split: str) -> Predictions:
    """Return y, group and predicted class, each (N,), of "val" or "test" under a selection rule.

    `path` is the file that `record` was read from. Raises `RecordError` if there are no
    predictions, or if they are not those that the record was written with.
    """
    if record.predictions is None or rule not in record.outcomes:
        raise RecordError(f"{path} has no predictions for {rule}")
    stored = _stored(path, record, record.predictions)
    predicted = f"{split}.{prediction_key(record.outcomes[rule].epoch)}"
    return {
        "y": stored[f"{split}.y"],
        "group": stored[f"{split}.group"],
        "predicted": stored[predicted],
    }


def read_inferred(path: Path, record: Record) -> Predictions:
    """Return y and group of the training samples, each (N,), and what the method inferred of them.

    The latter are those of "groups", "conflict" and "scores" that it gave to `lab.inferred`.
    `path` is the file that `record` was read from. Raises `RecordError` as `read_predictions`.
    """
    if record.predictions is None or record.inference is None:
        raise RecordError(f"{path} has nothing that its method inferred of the training samples")
    stored = _stored(path, record, record.predictions)
    inferred = {
        key.removeprefix(INFERRED): v for key, v in stored.items() if key.startswith(INFERRED)
    }
    return {"y": stored["train.y"], "group": stored["train.group"], **inferred}


def read_weights(path: Path, record: Record) -> bytes:
    """Return the content of the safetensors file of weights beside a record.

    `path` is the file that `record` was read from. Raises `RecordError` if no weights were kept,
    or if they are not those that the record was written with.
    """
    if record.weights is None:
        raise RecordError(
            f"The weights of {path} were not stored: run its spec again with --keep-weights"
        )
    return content(path, record.weights)


def location(path: Path, entry: Mapping[str, str]) -> Path:
    """Return where a file named in the record at `path` is: in the record's folder, always."""
    return path.parent / Path(entry["file"]).name


def most_bytes(record: Result) -> int:
    """Return the largest size that the predictions file of a record or a trial can have."""
    epochs = len({outcome.epoch for outcome in record.outcomes.values()})
    counts = record.task.group_counts
    numbers = sum(sum(counts[split]) for split in record.judged) * (epochs + 2)
    if getattr(record, "inference", None) is not None:
        numbers += sum(counts["train"]) * 5  # y, group, and at most three that were inferred
    return 8 * numbers + HEADER


def _stored(path: Path, record: Record, entry: Mapping[str, str]) -> Predictions:
    from safetensors.numpy import load

    stored: Predictions = load(content(path, entry, most_bytes(record)))
    return stored


def content(path: Path, entry: Mapping[str, str], most: int | None = None) -> bytes:
    """Return the content of a file of at most `most` bytes named in the record at `path`.

    Raises `RecordError` if it cannot be read or has another SHA-256 than the record says.
    """
    file = location(path, entry)
    try:
        read = read_regular(file, most)
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise RecordError(f"{file} cannot be read: it does not fit into memory") from error
    if sha256(read) != entry["sha256"]:
        raise RecordError(f"{file} is not the file that {path.name} was written with")
    return read
