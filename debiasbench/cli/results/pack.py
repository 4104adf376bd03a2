"""`debiasbench results pack`: records in one file, which is read like a folder."""

from __future__ import annotations

from pathlib import Path

import click

from debiasbench.cli.common import debug_option, results_option, say
from debiasbench.cli.parsing import Command
from debiasbench.cli.results.choosing import choice, choosing_options
from debiasbench.common.wording import counted, readable_size


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@choosing_options
@results_option
@debug_option
def pack(
    file: Path,
    method: str | None,
    dataset: str | None,
    seed: str | None,
    failed: bool,
    results: Path,
) -> None:
    """Pack records and their predictions into FILE, whose name ends in .records.tar.xz.

    Weights are left out. Without a choice, searches and their trials are packed too. `leaderboard`,
    `verify` and the other commands read such a file like a folder, and also those that lie in a
    folder of records. Equal records give equal files.
    """
    from debiasbench.common.errors import RecordError
    from debiasbench.records.archive import ENDING, is_archive
    from debiasbench.records.archive import pack as packed
    from debiasbench.records.beside import WEIGHTS
    from debiasbench.records.held import chosen, files
    from debiasbench.records.store import write_bytes

    if not is_archive(file.name):
        raise click.UsageError(f"{file}: the name of an archive ends in {ENDING}")
    wanted = choice(method, dataset, seed, failed)
    problems: list[str] = []
    found = chosen(results, wanted, problems)
    for problem in problems:
        say(f"Warning: {problem}", err=True)
    if not found:
        raise RecordError(f"No record in {results} matches, so nothing was packed")
    # what lies in the folder comes before what lies in archives there
    once = {record.id: (path, record) for path, record in reversed(found)}
    paths = [beside for path, record in once.values() for beside in files(path, record)]
    if wanted.is_all:
        paths += sorted((results / "search").glob("*.json"))
        paths += sorted((results / "search").glob("*.safetensors"))
    names: dict[str, Path] = {}
    for path in paths:
        if not path.name.endswith(WEIGHTS):
            names.setdefault(_name(path, results), path)
    content = packed(names.items())
    write_bytes(file, content)
    before = sum(path.stat().st_size for path in names.values())
    say(
        f"Packed {counted(len(once), 'record')} into {file}: {readable_size(len(content))} "
        f"instead of {readable_size(before)}"
    )


def _name(path: Path, results: Path) -> str:
    """Return the name of a file in the archive; records that lie in another one have theirs."""
    within = path.relative_to(results) if path.is_relative_to(results) else Path(path.name)
    return within.as_posix()
