"""Making the folder of a submission from records."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError, RecordError, StoreError
from debiasbench.common.regular import read_regular
from debiasbench.records.beside import location
from debiasbench.records.checks.search import examine, like
from debiasbench.records.reading import read_all, visited
from debiasbench.records.store import write_bytes, write_text
from debiasbench.submissions.about import FILE, template
from debiasbench.submissions.folder import MOST_BYTES, NAME, RECORDS, SEARCHES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.records.record import Record, Result


def prepared(
    folder: Path, places: Sequence[Path], values: dict[str, str], method: str | None = None
) -> list[Path]:
    """Copy records, predictions and searches to a new folder, and write `submission.toml`.

    Searches are copied with their trials if a record reports their winner. `method`: copy only the
    records of this method. `values`: what is known of `submission.toml`;
    the distribution and its version come from the records. Returns the copied records. Raises
    `OptionError`, `RecordError` and `StoreError`.
    """
    if not NAME.fullmatch(folder.name):
        raise OptionError(
            f"{folder.name!r} is not a valid name of a submission: write 2 to 40 lower-case "
            "letters, digits and '-'"
        )
    if folder.exists():
        raise OptionError(f"{folder} exists already: remove it, or choose another name")
    records, problems = read_all(places)
    if problems:
        raise RecordError(f"{problems[0]}. Remove it, or give other records")
    chosen = [(p, r) for p, r in records if method in {None, r.spec.method.name}]
    if not chosen:
        raise RecordError(
            "There is no record to submit" + (f" of method {method}" if method else "")
        )
    names = Counter(path.name for path, _ in chosen)
    if twice := [name for name, number in names.items() if number > 1]:
        raise RecordError(f"There are several records {twice[0]}: give folders that have it once")
    origin = _origin([record for _, record in chosen])
    try:
        (folder / RECORDS).mkdir(parents=True)
        copied = [_copied(path, record, folder / RECORDS) for path, record in chosen]
        _copy_searches(places, [record for _, record in chosen], folder / SEARCHES)
    except OSError as error:
        raise StoreError(f"Cannot copy records to {folder}: {error.strerror or error}") from error
    write_text(folder / FILE, template({**values, **origin}))
    return copied


def _origin(records: Sequence[Record]) -> dict[str, str]:
    """Return distribution and version of the methods, which must be those of all records."""
    origins = sorted({record.provenance.plugins.get("method", "") for record in records})
    if len(origins) > 1:
        raise RecordError(
            f"The records have methods of {' and '.join(origins)}: make a submission for each, "
            "with --method"
        )
    distribution, _, version = origins[0].rpartition(" ")
    return {"distribution": distribution, "version": version}


def _copy_searches(places: Sequence[Path], records: Sequence[Record], folder: Path) -> None:
    found: list[str] = []
    list(visited(places, [], found))
    for file in map(Path, found):
        one = examine(file)
        if one.findings:
            raise RecordError(f"{file}: {one.findings[0].message}. Remove it, or run it again")
        if not any(like(record.spec, one.winner) for record in records):
            continue
        folder.mkdir(exist_ok=True)
        write_bytes(folder / file.name, read_regular(file, MOST_BYTES))
        for trial in one.trials:
            path = file.parent / one.search.trial_file(trial.id)
            _copied(path, trial, folder)


def _copied(path: Path, record: Result, folder: Path) -> Path:
    if record.predictions is not None:
        content = read_regular(location(path, record.predictions), MOST_BYTES)
        write_bytes(folder / location(path, record.predictions).name, content)
    target = folder / path.name
    write_bytes(target, read_regular(path, MOST_BYTES))
    return target
