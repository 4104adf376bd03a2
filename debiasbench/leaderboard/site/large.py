"""A site of thousands of records: pages of a data set by several processes, records on few pages.

Each data set is shown under its own metric and selection rule only. The records whose ids begin
with the same two digits share a page, so that the address of each follows from its id.
"""

from __future__ import annotations

import gzip
import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from debiasbench.common.copies import copied
from debiasbench.leaderboard import cells
from debiasbench.leaderboard.board import REPEATED, each, finished, of_dataset
from debiasbench.leaderboard.flat import as_csv, as_json, blank, lines, text
from debiasbench.leaderboard.frame import COSTS, Texts, runs_of
from debiasbench.leaderboard.site import build, data
from debiasbench.leaderboard.site.content import Content, Place, grouped, newest, titles
from debiasbench.leaderboard.site.folder import Folder
from debiasbench.leaderboard.site.links import DIGITS, Links, board_file
from debiasbench.leaderboard.site.markup import escaped, page
from debiasbench.leaderboard.site.names import file_name, hashed
from debiasbench.records.metrics import METRICS
from debiasbench.specs.command import command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from debiasbench.leaderboard.gather import Gathered
    from debiasbench.leaderboard.site.content import About
    from debiasbench.records.record import Record

LARGE = 2000  # records, above which a site is made in this way


@dataclass(frozen=True)
class Made:
    """What a process made of a data set.

    `place`: with a board that holds no test samples. `written`: path -> SHA-256 of its files.
    `entries`: id -> the row of the record in a page. `csv`: a line for each record.
    """

    place: Place
    written: dict[str, str]
    entries: dict[str, str]
    csv: str


def write_large(
    gathered: Gathered,
    out: Path,
    *,
    about: Mapping[str, About] | None = None,
    **asked: str | None,
) -> int:
    """Write a site of all pages into a folder; return the number of its files; see `write_site`.

    `gathered`: what tables need of records, under the rule that is asked for. `asked`: dataset,
    metric, select and baseline of `boards`. Boards that were kept are not used: figures need their
    tests.
    """
    folder, dataset = Folder(out), asked.pop("dataset", None)
    records = gathered.records if dataset is None else of_dataset(gathered.records, dataset)
    groups = grouped(records)
    repeated = Counter(key[:2] for key in groups)
    latest = newest(gathered, records)
    jobs = [
        (
            gathered,
            folder,
            about or {},
            latest,
            key,
            title,
            groups[key],
            repeated[key[:2]] > 1,
            asked,
        )
        for key, title in zip(groups, titles(groups), strict=True)
    ]
    made = list(copied(_place, jobs))
    for one in made:
        folder.include(one.written)
    # raises for a baseline that no board has
    finished([one.place.board for one in made], asked.get("baseline"))
    places = [replace(m.place, records=of) for m, of in zip(made, groups.values(), strict=True)]
    content = Content(gathered, places, about or {}, large=True)
    folder.write("index.html", build.index(content).encode())
    for written in copied(_method, [(content, folder, name) for name in content.methods]):
        folder.include(written)
    entries = {name: row for one in made for name, row in one.entries.items()}
    for name, rows in _pages(content, entries):
        folder.write(name, rows.encode())
    own = [place.board for place in content.places]
    folder.write("data/overview.csv", as_csv(own).encode())
    folder.write("data/overview.json", as_json(own, compact=True).encode())
    table = "".join(
        [lines([dict.fromkeys(COLUMNS)]).partition("\n")[0] + "\n", *(m.csv for m in made)]
    )
    folder.write("data/records.csv.gz", gzip.compress(table.encode(), 6, mtime=0))
    folder.write("latest.json", text(data.latest(content)).encode())
    return folder.finish()


def _place(
    gathered: Gathered,
    folder: Folder,
    about: Mapping[str, About],
    latest: Record,
    key: tuple[str, str, str],
    title: str,
    records: Sequence[Record],
    repeated: bool,
    asked: Mapping[str, Any],
) -> Made:
    """Write the pages of a data set and a network; `repeated`: another one has the same name."""
    (board,) = each(records, **gathered.evidence, **asked)
    if repeated:
        board = replace(board, notes=[*board.notes, REPEATED])
    view = board.rule, board.metric
    place = Place(hashed(title, *key), title, records, {view: board}, view)
    content = Content(gathered, [place], about, large=True, latest=latest)
    files = {f"d/{board_file(place, view)}": build.board(content, place, view).encode()}
    files |= data.of_place(place, compact=True)
    for name, written in files.items():
        folder.write(name, written)
    entries, table = _records(content, place, records)
    rows = [replace(row, tables={}) for row in board.rows]
    bare = replace(board, rows=rows, comparison=None)
    # the process that gets it has the records
    return Made(
        replace(place, records=(), boards={view: bare}), folder.written(files), entries, table
    )


def _method(content: Content, folder: Folder, name: str) -> dict[str, str]:
    path = f"m/{file_name(name)}.html"
    folder.write(path, build.method(content, name, content.methods[name]).encode())
    return folder.written([path])


COLUMNS = (
    "id",
    "dataset",
    "model",
    "method",
    "setting",
    "seed",
    "status",
    "select",
    "epoch",
    *METRICS,
    *COSTS,
    "hardware",
    "started",
    "file",
)
"""The columns of the data of all records."""


def _records(
    content: Content, place: Place, records: Sequence[Record]
) -> tuple[dict[str, str], str]:
    """Return the row of each record in a page, by id, and a table of all of them as CSV."""
    board, links, gathered = place.board, Links("../", large=True), content.gathered
    address, texts = links.board(place), Texts()
    board_link = f'<a href="{escaped(address)}">{escaped(place.title)}</a>'
    of_row = {}  # what the seeds of a row share
    for row in board.rows:
        link = f'<a href="{escaped(links.method(row.method))}">{escaped(row.name)}</a>'
        of_row.update(dict.fromkeys(row.records, (row, link)))
    entries, table = {}, []
    for record, run in zip(records, runs_of(records, board.rule, texts), strict=True):
        row, link = of_row[record.id]
        file, why = gathered.paths[record.id].name, run["failure"] or run["missing"] or ""
        metrics = [run.get(name, math.nan) for name in METRICS]
        table.append(
            {
                "id": record.id,
                "dataset": board.dataset,
                "model": board.model,
                "method": row.method,
                "setting": row.setting,
                "seed": record.spec.seed,
                "status": record.status,
                "select": board.rule,
                "epoch": run["epoch"],
                **dict(zip(METRICS, map(blank, metrics), strict=True)),
                **{name: blank(run.get(name, math.nan)) for name in COSTS},
                "hardware": record.provenance.hardware,
                "started": gathered.started.get(record.id, record.provenance.started),
                "file": file,
            }
        )
        name = escaped(record.id)
        badge = f' <span class="badge">{escaped(why)}</span>' if why else ""
        cells_of = "".join(f"<td>{cells.percent(value)}</td>" for value in metrics)
        entries[record.id] = (
            f'<tr id="{name}"><th scope="row"><a href="#{name}">{name}</a>{badge}</th>'
            f'<td class="text">{board_link}</td><td class="text">{link}</td>'
            f"<td>{record.spec.seed}</td><td>{'—' if run['epoch'] is None else run['epoch']}</td>"
            f'{cells_of}<td class="text">{escaped(file)}<details><summary>run it again</summary>'
            f"<code>{escaped(command(record.spec))}</code></details></td></tr>\n"
        )
    return entries, lines(table).partition("\n")[2]


def _pages(content: Content, entries: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each page of records."""
    links = Links("../", large=True)
    pages: dict[str, list[str]] = {}
    for name in sorted(entries):
        pages.setdefault(name[:DIGITS], []).append(entries[name])
    for digits, rows in pages.items():
        yield (
            f"r/{digits}.html",
            page(
                "records.html.j2",
                **build.shared(content, links, f"records {digits}…"),
                digits=digits,
                number=len(rows),
                metrics=[f"{cells.words(name)} %" for name in METRICS],
                rows=Markup("".join(rows)),
            ),
        )
