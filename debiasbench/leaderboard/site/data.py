"""The data behind the pages: tables as CSV and JSON, and the records themselves."""

from __future__ import annotations

import gzip
import json
import math
from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError
from debiasbench.common.regular import read_regular
from debiasbench.leaderboard.flat import as_csv, as_json, blank, lines, text
from debiasbench.leaderboard.row import last_of_each_seed
from debiasbench.records.beside import sha256
from debiasbench.records.upgrade import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debiasbench.leaderboard.site.content import Content, Place
    from debiasbench.records.record import Record


def files(content: Content) -> Iterator[tuple[str, bytes]]:
    """Yield the path and the content of each file of data."""
    for place in content.places:
        yield from of_place(place).items()
    own = [place.board for place in content.places]
    yield "data/overview.csv", as_csv(own).encode()
    yield "data/overview.json", as_json(own).encode()
    each = []
    for record in sorted(content.records.values(), key=lambda record: record.id):
        stored = original(content, record)
        yield f"r/{record.id}.json", stored
        each.append(_line(stored))
    # without a time and a name, so that equal records give equal bytes
    yield "data/records.jsonl.gz", gzip.compress("".join(f"{e}\n" for e in each).encode(), mtime=0)
    yield "latest.json", text(latest(content)).encode()


def of_place(place: Place, *, compact: bool = False) -> dict[str, bytes]:
    """Return the tables of a data set and a network, by their paths; `compact`: see `as_json`."""
    boards = [place.boards[view] for view in sorted(place.boards)]
    return {
        f"data/{place.name}.csv": as_csv(boards).encode(),
        f"data/{place.name}.json": as_json(boards, compact=compact).encode(),
        f"data/{place.name}.groups.csv": lines(_groups(place)).encode(),
    }


def original(content: Content, record: Record) -> bytes:
    """Return the bytes of the file of a record. Raises `RecordError` if it is gone."""
    path = content.gathered.paths[record.id]
    try:
        return read_regular(path)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error


def beside(content: Content, record: Record) -> list[tuple[str, str, str, str]]:
    """Return what, name, SHA-256 and address of each file of a run; only the record is copied."""
    name = content.gathered.paths[record.id].name
    found = [("record", name, sha256(original(content, record)), f"{record.id}.json")]
    for what, entry in (("predictions", record.predictions), ("weights", record.weights)):
        if entry is not None:
            found.append((what, entry["file"], entry["sha256"], ""))
    return found


def _line(record: bytes) -> str:
    return json.dumps(json.loads(record), sort_keys=True, separators=(",", ":"))


def _groups(place: Place) -> list[dict[str, object]]:
    """Return a row for each row of the table, selection rule and group of the test split.

    The accuracy is the mean over seeds.
    """
    task = place.task
    names = [(c, b) for c in task.classes for b in task.biases]
    known = {record.id: record for record in place.records}
    totals = task.group_counts["test"]
    made: list[dict[str, object]] = []
    for rule in sorted({rule for rule, _ in place.boards}):
        metric = next(metric for of, metric in place.boards if of == rule)
        for row in place.boards[rule, metric].rows:
            done = last_of_each_seed(known[name] for name in row.records)
            hits = [r.outcomes[rule].test.hits for r in done if rule in r.outcomes]
            made += [
                {
                    "method": row.method,
                    "setting": row.setting,
                    "select": rule,
                    "class": one,
                    "bias": other,
                    "samples": n,
                    "seeds": len(hits),
                    "accuracy": blank(_mean([h[g] / n for h in hits] if n else [])),
                }
                for g, ((one, other), n) in enumerate(zip(names, totals, strict=True))
            ]
    return made


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def latest(content: Content) -> dict[str, object]:
    """Describe the site: its newest record, and the numbers of records, methods and boards."""
    newest = content.newest.provenance
    return {
        "commit": newest.git,
        "date": content.gathered.started.get(content.newest.id, newest.started),
        "schema": SCHEMA,
        "counts": {
            "records": len(content.records),
            "methods": len(content.methods),
            "boards": len(content.places),
            "unverified": len(content.gathered.unverified & content.records.keys()),
        },
    }
