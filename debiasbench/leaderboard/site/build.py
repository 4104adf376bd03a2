"""Make the pages of a site from content, and write them as a folder or as one file."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from debiasbench.leaderboard import cells
from debiasbench.leaderboard.render import grid
from debiasbench.leaderboard.site import data, heat, methods, overview, runs
from debiasbench.leaderboard.site.content import collect
from debiasbench.leaderboard.site.curves import drawings
from debiasbench.leaderboard.site.figures import MOST, beside, figures
from debiasbench.leaderboard.site.folder import Folder
from debiasbench.leaderboard.site.grids import noted
from debiasbench.leaderboard.site.links import Links, board_file
from debiasbench.leaderboard.site.markup import page
from debiasbench.leaderboard.site.names import file_name
from debiasbench.leaderboard.site.rows import badges, board_table, options
from debiasbench.records.metrics import METRICS
from debiasbench.records.selection import RULES
from debiasbench.records.store import write_text
from debiasbench.specs.command import CONTINUED, command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from debiasbench.leaderboard.gather import Gathered
    from debiasbench.leaderboard.grid import Grid
    from debiasbench.leaderboard.row import Row
    from debiasbench.leaderboard.site.content import Content, Place, View
    from debiasbench.records.record import Record


COMMANDS = 50  # of a method, for which a page of a large site has room


def write_site(gathered: Gathered, out: Path, **arguments: Any) -> int:
    """Write a site of all pages into a folder; return the number of its files.

    `gathered`: whole records, see `gather`. `arguments`: those of `collect`. Equal records give
    equal bytes. Files of an earlier site in the folder are replaced, and removed if they are not
    part of this one. Raises `StoreError` for a folder that holds something else.
    """
    folder = Folder(out)
    content = collect(gathered, **arguments)
    for name, text in pages(content):
        folder.write(name, text.encode())
    for name, binary in data.files(content):
        folder.write(name, binary)
    return folder.finish()


def write_page(gathered: Gathered, out: Path, **arguments: Any) -> None:
    """Write one file with the tables that a site shows first; see `write_site`."""
    content = collect(gathered, whole=False, **arguments)
    write_text(out, single(content))


def pages(content: Content) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each page of a site."""
    yield "index.html", index(content)
    for place in content.places:
        for view in place.boards:
            yield f"d/{board_file(place, view)}", board(content, place, view)
        if len(place.board.rows) > MOST:
            yield f"d/{place.name}.figures.html", _figures(content, place)
        if grids := content.rules.get(place):
            yield f"d/{place.name}.rules.html", _rules(content, place, grids)
    for name, rows in content.methods.items():
        yield f"m/{file_name(name)}.html", method(content, name, rows)
    for record in content.records.values():
        yield f"r/{record.id}.html", _record(content, record)


def single(content: Content) -> str:
    """Return the text of the one page that holds everything that is shown first."""
    links = Links(single=True)
    return page(
        "single.html.j2",
        **_over_all(content, links),
        boards=[
            _view(content, place, place.own, links, f"t-{i}")
            for i, place in enumerate(content.places)
        ],
    )


def _links(content: Content, up: str = "") -> Links:
    return Links(up, large=content.large)


def shared(content: Content, links: Links, title: str) -> dict[str, Any]:
    """Return what the frame of every page shows."""
    newest = content.newest.provenance
    started = content.gathered.started.get(content.newest.id, newest.started)
    return {
        "title": title,
        "links": links,
        "made": f"Newest record: {started[:10]}"
        + (f", commit {newest.git[:12]}" if newest.git else ""),
        "board": None,
    }


def index(content: Content) -> str:
    """Return the text of the first page."""
    links = _links(content)
    return page("index.html.j2", **_over_all(content, links))


def _over_all(content: Content, links: Links) -> dict[str, Any]:
    """Return what the first page of a site and the single page both show."""
    return {
        **shared(content, links, "debiasbench leaderboards"),
        "facts": _facts(content),
        "places": overview.place_table(content, links),
        "methods": overview.method_table(content, links),
        "across": noted(content.across, "across", content.methods, links),
        "known": _known(content, links),
    }


def _figures(content: Content, place: Place) -> str:
    return page(
        "figures.html.j2",
        **shared(content, _links(content, "../"), f"{place.title}: figures"),
        place=place,
        figures=figures(place.board),
    )


def _rules(content: Content, place: Place, grids: Sequence[Grid]) -> str:
    links = _links(content, "../")
    return page(
        "rules.html.j2",
        **shared(content, links, f"{place.title}: selection rules"),
        place=place,
        tables=noted(grids, "rules", content.methods, links),
    )


def _facts(content: Content) -> list[tuple[str, str]]:
    made = [record.provenance for record in content.records.values()]
    failed = sum(record.status == "failed" for record in content.records.values())
    unverified = len(content.gathered.unverified & content.records.keys())
    checked = "all agree with their predictions"
    if unverified:
        checked = f"{unverified:,} cannot be compared with predictions"
    return [
        ("records", f"{len(made):,}" + (f", {failed:,} of failed runs" if failed else "")),
        ("methods", f"{len(content.methods):,}"),
        ("data sets and networks", f"{len(content.places):,}"),
        ("machines", "; ".join(sorted({one.hardware for one in made}))),
        ("verification", checked),
    ]


def _known(content: Content, links: Links) -> list[tuple[str, str, str, str]]:
    """Return name, address, summary and citation of each method."""
    found = []
    for name, rows in content.methods.items():
        about = content.known_of(rows[0][1])
        found.append((name, links.method(name), about.summary, about.citation))
    return found


def _view(
    content: Content, place: Place, view: View, links: Links, name: str = "board"
) -> dict[str, Any]:
    """Return what the part of a page about a board shows."""
    board = place.boards[view]
    shown = heat.chosen(board.rows, place.task)
    own = _own(board.rows)
    return {
        "place": place,
        "shown": board,
        "table": board_table(content, place, board, links, name),
        "figures": beside(board),
        "heats": [h for row in shown if (h := heat.of_row(content, place, row, board.rule))],
        "hidden": sum(bool(row.values) for row in board.rows) - len(shown),
        "notes": [note for note in grid(board, "html-table", ()).remarks if note not in own],
        "options": options(board.rows),
        "epoch": cells.epoch(board.rule),
        "metric": cells.words(board.metric),
    }


def _own(rows: list[Row]) -> set[str]:
    """Return the remarks that name the options of a row, which pages list separately."""
    return {f"{cells.options(row)}." for row in rows if row.options and not row.found_by}


def board(content: Content, place: Place, view: View) -> str:
    """Return the text of the page of a board."""
    links = _links(content, "../")
    rule, metric = view
    frame = shared(content, links, place.title) | {"board": (place.name, *place.own)}
    return page(
        "board.html.j2",
        **frame,
        **_view(content, place, view, links),
        rule=rule,
        drawn=links.figures(place) if len(place.board.rows) > MOST and not content.large else "",
        compared=links.protocol(place) if content.rules.get(place) else "",
        metrics=[
            (cells.words(name), links.board(place, (rule, name)), name == metric, name)
            for name in METRICS
            if (rule, name) in place.boards
        ],
        rules=[
            (name, links.board(place, (name, metric)), name == rule, name)
            for name in RULES
            if (name, metric) in place.boards
        ],
        files=[
            (text, links.data(f"{place.name}.{ending}"))
            for text, ending in (("CSV", "csv"), ("JSON", "json"), ("groups as CSV", "groups.csv"))
        ],
    )


def method(content: Content, name: str, rows: list[tuple[Place, Row]]) -> str:
    """Return the text of the page of a method, of which `rows` are all."""
    links = _links(content, "../")
    first = content.records[rows[0][1].records[0]]
    commands = {}
    for place, row in rows[:COMMANDS] if content.large else rows:
        spec = content.records[row.records[0]].spec
        commands[place.title, row.setting] = command(spec, CONTINUED)
    room = max(heat.MOST // max(len(first.task.group_counts["test"]), 1), 1)
    made = ((place, row, heat.of_row(content, place, row, place.board.rule)) for place, row in rows)
    heats = islice(((place, row, one) for place, row, one in made if one), room)
    return page(
        "method.html.j2",
        **shared(content, links, name),
        about=content.known_of(rows[0][1]),
        sees=methods.sees(rows),
        makers=methods.makers(rows),
        submissions=methods.submissions(content, rows),
        options=methods.option_values(rows),
        table=methods.method_table(content, rows, links),
        pairs=methods.pair_tables(rows, links),
        more=max(len(rows) - COMMANDS, 0) if content.large else 0,
        heats=[
            (f"{place.title}{': ' if row.setting else ''}{row.setting}", one)
            for place, row, one in heats
        ],
        commands=[
            (f"{title}{': ' if setting else ''}{setting}", text)
            for (title, setting), text in commands.items()
        ],
    )


def _record(content: Content, record: Record) -> str:
    links = _links(content, "../")
    place, row = content.row_of[record.id]
    return page(
        "record.html.j2",
        **shared(content, links, record.spec.stem),
        record=record,
        place=place,
        row=row,
        trust=content.gathered.standing.trust.get(record.id),
        badges=badges(content, row),
        command=command(record.spec, CONTINUED),
        sees=f"{cells.SEEN['train'][record.supervision.train]}, "
        f"{cells.SEEN['val'][record.supervision.val]}",
        outcomes=runs.outcome_table(record) if record.outcomes else None,
        heats=runs.heats(record),
        curves=drawings(record),
        provenance=runs.provenance(record),
        costs=runs.costs(record),
        stages=runs.stage_table(record),
        files=data.beside(content, record),
    )
