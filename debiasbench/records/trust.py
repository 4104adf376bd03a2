"""What maintainers state about records, in files of their own: trust levels and withdrawn records.

`trust.json` and `withdrawn.toml` lie beside the records or above them; nothing in a record or in a
submission can change them. A level is that of one record file: if the file changes, it has none.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import RecordError
from debiasbench.common.regular import read_regular
from debiasbench.common.wording import shown
from debiasbench.records.beside import around, sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

LEVELS = ("listed", "verified", "reproduced", "independent")
"""Trust levels from least to most."""

TRUST, WITHDRAWN = "trust.json", "withdrawn.toml"
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Trust:
    """How far a record was checked, when, at which commit, and what says so.

    `who`, `source`, `source_sha256`: who submitted it, the https address of the source code of its
    method, and the SHA-256 of the source distribution; empty if there is none.
    """

    level: str  # one of LEVELS
    date: str  # ISO 8601
    sha256: str  # of the record file that was checked, which names its predictions by their own
    commit: str = ""
    log: str = ""
    who: str = ""
    source: str = ""
    source_sha256: str = ""


@dataclass(frozen=True)
class Withdrawal:
    """Why a record must not count any more, and since when."""

    reason: str
    date: str


def found(places: Iterable[Path], name: str) -> list[Path]:
    """Return the files of a name beside and above files and folders, nearest first."""
    files: dict[Path, None] = {}
    for place in places:
        real = place.resolve()
        for folder in around(real if real.is_dir() else real.parent):
            if (folder / name).is_file():
                files[folder / name] = None
                break
    return list(files)


def read_trust(file: Path) -> dict[str, Trust]:
    """Return the trust of each id; raises `RecordError`."""
    try:
        data = json.loads(_text(file))
        trust = {str(key): Trust(**value) for key, value in data.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"{file} is not a file of trust levels ({error})") from error
    for key, one in trust.items():
        if one.level not in LEVELS:
            raise RecordError(
                f"{file}: the level of {shown(key)} is {shown(one.level)}; levels are "
                f"{', '.join(LEVELS)}"
            )
        if not all(isinstance(value, str) for value in asdict(one).values()):
            raise RecordError(f"{file}: an entry of {shown(key)} is not a text")
        if one.source and not one.source.startswith("https://"):
            raise RecordError(
                f"{file}: the source of {shown(key)} is {shown(one.source)}, must begin with "
                "https://"
            )
    return trust


def raised(file: Path, levels: Mapping[str, Trust]) -> list[str]:
    """Write levels to a file, except those that are not higher than before; return the ids.

    Another record file of the same id begins anew.
    """
    from debiasbench.records.store import write_text

    known = read_trust(file) if file.exists() else {}
    higher = {
        key: one
        for key, one in levels.items()
        if key not in known
        or known[key].sha256 != one.sha256
        or LEVELS.index(one.level) > LEVELS.index(known[key].level)
    }
    if higher:
        data = {key: _plain(one) for key, one in sorted({**known, **higher}.items())}
        write_text(file, json.dumps(data, indent=1) + "\n")
    return sorted(higher)


def _plain(one: Trust) -> dict[str, str]:
    """Return what the file has of a level; details of a submission only where there are any."""
    values: dict[str, str] = asdict(one)
    optional = ("who", "source", "source_sha256")
    return {name: value for name, value in values.items() if value or name not in optional}


def read_withdrawn(file: Path) -> dict[str, Withdrawal]:
    """Return the withdrawn ids: each a table `[ID]` with `reason` and `date`.

    Raises `RecordError`.
    """
    try:
        data: dict[str, Any] = tomllib.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{file} is not valid TOML ({error})") from error
    withdrawn = {}
    for key, value in data.items():
        if not isinstance(value, dict) or value.keys() != {"reason", "date"}:
            raise RecordError(f"{file}: {shown(key)} must be a table with a reason and a date")
        reason, date = " ".join(str(value["reason"]).split()), str(value["date"])
        if not reason or not date:
            raise RecordError(f"{file}: the reason or the date of {shown(key)} is empty")
        withdrawn[key] = Withdrawal(reason, date)
    return withdrawn


def trust_of(
    places: Iterable[Path], paths: Mapping[str, Path]
) -> tuple[dict[str, Trust], frozenset[str]]:
    """Return id -> trust from all files beside or above files and folders, and ids that lost it.

    `paths`: id -> the file of the record; one that is not the file that was checked has no level.
    """
    trust, lost = {}, set()
    for file in found(places, TRUST):
        for key, one in read_trust(file).items():
            if key not in paths:
                continue
            if content_of(paths[key]) == one.sha256:
                trust[key] = one
            else:
                lost.add(key)
    return trust, frozenset(lost - trust.keys())


def content_of(record: Path) -> str:
    """Return the SHA-256 of a record file; raises `RecordError`."""
    try:
        return sha256(read_regular(record, MOST_BYTES))
    except OSError as error:
        raise RecordError(f"{record} cannot be read: {error.strerror or error}") from error


def withdrawn_of(places: Iterable[Path]) -> dict[str, Withdrawal]:
    """Return id -> withdrawal from all files beside or above files and folders."""
    return {k: one for file in found(places, WITHDRAWN) for k, one in read_withdrawn(file).items()}


def _text(file: Path) -> str:
    try:
        return read_regular(file, MOST_BYTES).decode()
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{file} is not a text file in UTF-8 ({error})") from error
