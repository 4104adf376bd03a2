"""Making the folder of a submission from records."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError, RecordError, StoreError
from debiasbench.common.regular import read_regular
from debiasbench.records.beside import location
from debiasbench.records.checks.search import examine, is_reported
from debiasbench.records.reading import read_all, visited
from debiasbench.records.store import write_bytes, write_text
from debiasbench.specs.plugins import Plugins
from debiasbench.submissions import against
from debiasbench.submissions.about import FILE, template
from debiasbench.submissions.against import tuned
from debiasbench.submissions.folder import MOST_BYTES, NAME, RECORDS, SEARCHES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.records.checks.search import ExaminedSearch
    from debiasbench.records.record import Record, Result


@dataclass(frozen=True)
class Prepared:
    """What `prepared` made: the copied records, and a message for each that was left out."""

    records: Sequence[Path]
    left_out: Sequence[str]


def prepared(
    folder: Path, places: Sequence[Path], values: dict[str, str], method: str | None = None
) -> Prepared:
    """Copy records, predictions and searches to a new folder, and write `submission.toml`.

    Searches are copied with their trials if a record reports their winner. `method`: copy only the
    records of this method. `values`: what is known of `submission.toml`; the distribution and its
    version come from the records. With a suite among them, records with other settings than it has
    are left out. Raises `OptionError`, `RecordError`, `StoreError` and `UnknownNameError`.
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
    searches = _searches(places)
    left_out: list[str] = []
    if suite := values.get("suite"):
        chosen, left_out = _of_suite(chosen, suite, searches)
    names = Counter(path.name for path, _ in chosen)
    if twice := [name for name, number in names.items() if number > 1]:
        raise RecordError(f"There are several records {twice[0]}: give folders that have it once")
    origin = _origin([record for _, record in chosen])
    try:
        (folder / RECORDS).mkdir(parents=True)
        copied = [_copied(path, record, folder / RECORDS) for path, record in chosen]
        _copy_searches(searches, [record for _, record in chosen], folder / SEARCHES)
    except OSError as error:
        raise StoreError(f"Cannot copy records to {folder}: {error.strerror or error}") from error
    write_text(folder / FILE, template({**values, **origin}))
    return Prepared(copied, left_out)


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


def _searches(places: Sequence[Path]) -> list[ExaminedSearch]:
    """Return the searches in files and folders; raises `RecordError` for a bad one."""
    files: list[str] = []
    list(visited(places, [], files))
    found = [examine(Path(file)) for file in files]
    for one in found:
        if one.findings:
            text = f"{one.path}: {one.findings[0].message}"
            raise RecordError(f"{text}. Remove it, or run the search again")
    return found


def _of_suite(
    records: Sequence[tuple[Path, Record]],
    suite: str,
    searches: Sequence[ExaminedSearch],
) -> tuple[list[tuple[Path, Record]], list[str]]:
    """Return the records with the settings and the seeds of a suite, and why others are not."""
    required = against.expected(suite, Plugins(installed=False))
    kept, left_out = [], []
    for path, record in records:
        seeds = required.seeds.get(against.canonical_of(record.spec.dataset), set())
        wrong = [
            one.message
            for one in against.suite_settings(record, required, suite, tuned(record, searches))
        ]
        if not wrong and record.spec.seed not in seeds:
            wrong = [f"the suite {suite} has no seed {record.spec.seed}"]
        if wrong:
            left_out.append(f"{path}: {wrong[0]}")
        else:
            kept.append((path, record))
    if not kept:
        raise RecordError(
            f"No record has the settings of the suite {suite}: {left_out[-1]}. "
            f"`debiasbench suite show {suite}` prints them"
        )
    return kept, left_out


def _copy_searches(
    found: Sequence[ExaminedSearch], records: Sequence[Record], folder: Path
) -> None:
    for one in found:
        if not is_reported(one, records):
            continue
        folder.mkdir(exist_ok=True)
        write_bytes(folder / one.path.name, read_regular(one.path, MOST_BYTES))
        for trial in one.trials:
            _copied(one.path.parent / one.search.trial_file(trial.id), trial, folder)


def _copied(path: Path, record: Result, folder: Path) -> Path:
    if record.predictions is not None:
        content = read_regular(location(path, record.predictions), MOST_BYTES)
        write_bytes(folder / location(path, record.predictions).name, content)
    target = folder / path.name
    write_bytes(target, read_regular(path, MOST_BYTES))
    return target
