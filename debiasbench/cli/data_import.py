"""`debiasbench data import`: your own images as a data set that `run` takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import data_root_option, debug_option, load_plugins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.files.importing import Finished, Problem

MOST_SHOWN = 50  # bad images that are printed; --report has all


@click.command("import")
@click.argument("name")
@click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder with the images. Without --table a tree, CLASS/BIAS/FILE or "
    "SPLIT/CLASS/BIAS/FILE.",
)
@click.option(
    "--table",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV with a header and a row per image, UTF-8; parted by tabs if it ends in .tsv.",
)
@click.option("--label", metavar="COLUMN", help="The class.")
@click.option(
    "--bias",
    multiple=True,
    metavar="COLUMN",
    help="The bias attribute. Repeatable: several make one, such as place=water,season=winter.",
)
@click.option(
    "--file", metavar="COLUMN", help="The file, from FOLDER on.  [default: found by itself]"
)
@click.option(
    "--split",
    metavar="COLUMN",
    help="train, val or test, or 0, 1, 2.  [default: each group is split 70/10/20]",
)
@click.option(
    "--size",
    metavar="N|HxW",
    help="Scale to N x N or H x W pixels.  [default: as they are, all of one size]",
)
@click.option(
    "--aligned",
    multiple=True,
    metavar="CLASS:BIAS,...",
    help="Which bias values go with which class.  [default: those that training has with the "
    "class more often than by chance, P(bias | class) > P(bias)]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Decides the splits where no column does.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be imported.")
@click.option(
    "--convert",
    is_flag=True,
    help="Take palette, CMYK, 16-bit and transparent images too, as 8-bit RGB.",
)
@click.option("--replace", is_flag=True, help="Replace what was imported under this name.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Write all bad images to this CSV file; {MOST_SHOWN} are printed.",
)
@data_root_option
@click.option("--quiet", is_flag=True, help="No progress bar.")
@debug_option
def import_(
    name: str,
    images: Path,
    table: Path | None,
    label: str | None,
    bias: tuple[str, ...],
    file: str | None,
    split: str | None,
    size: str | None,
    aligned: tuple[str, ...],
    seed: int,
    skip_bad: bool,
    convert: bool,
    replace: bool,
    report: Path | None,
    data_root: Path,
    quiet: bool,
) -> None:
    """Make a data set NAME of your own images, for `debiasbench run --dataset NAME`.

    They are decoded, checked and written once, with checksums; the originals are not needed
    afterwards. Images that are bad are listed all at once, and nothing is imported until they are
    mended or left out with --skip-bad.
    """
    from contextlib import nullcontext

    from debiasbench.cli.progress import Bar
    from debiasbench.files.importing import BadRows, Source, import_data

    if table is None and (label or bias or file or split):
        raise click.UsageError("--label, --bias, --file and --split name columns: give --table too")
    if table is not None and not (label and bias):
        raise click.UsageError("--table needs --label COLUMN and --bias COLUMN")
    source = Source(
        images=images,
        table=table,
        label=label or "",
        bias=bias,
        file=file,
        split=split,
        size=_size(size),
        aligned=",".join(aligned) or None,
        seed=seed,
        convert=convert,
    )
    plugins = load_plugins()
    try:
        with nullcontext() if quiet else Bar() as progress:
            done = import_data(
                name,
                source,
                data_root,
                skip_bad=skip_bad,
                replace=replace,
                taken=plugins.datasets,
                progress=progress,
            )
    except BadRows as error:
        _list(error.problems, report)
        raise
    _list(done.left_out, report)
    for warning in done.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(_summary(name, done))
    click.echo(f"Next: {_next(name, data_root)}")


def _size(text: str | None) -> tuple[int, int] | None:
    """Read "64" or "48x64" as (height, width)."""
    if text is None:
        return None
    sides = re.fullmatch(r"(\d{1,5})(?:[x×](\d{1,5}))?", text.strip().lower())
    if sides is None or "0" in {s.lstrip("0") or "0" for s in sides.groups() if s}:
        raise click.UsageError(f"--size {text}: write N or HxW in pixels, such as 64 or 48x64")
    height = int(sides[1])
    return height, int(sides[2] or height)


def _list(problems: Sequence[Problem], report: Path | None) -> None:
    """Print bad images on stderr, the first of them, and write all to a file if asked."""
    for problem in problems[:MOST_SHOWN]:
        click.echo(str(problem), err=True)
    if len(problems) > MOST_SHOWN:
        rest = len(problems) - MOST_SHOWN
        way = f"{report} lists them" if report else "--report FILE lists them"
        click.echo(f"and {rest:,} more: {way}", err=True)
    if report is not None:
        _write(problems, report)


def _write(problems: Sequence[Problem], report: Path) -> None:
    import csv
    import io

    from debiasbench.records.store import write_text

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("line", "file", "problem"))
    writer.writerows((p.line or "", p.file, p.what) for p in problems)
    write_text(report, text.getvalue())


def _summary(name: str, done: Finished) -> str:
    from debiasbench.files.importing import bad_rows
    from debiasbench.files.sheet import group_table

    task = done.task
    total = sum(len(split) for split in task.splits().values())
    _, height, width = task.shape.input
    lines = [
        f"{name}: {total:,} images of {height}x{width} pixels, {len(task.classes)} classes, "
        f"{len(task.biases)} bias values"
    ]
    if done.left_out:
        lines.append(f"Left out as bad: {bad_rows(done.left_out):,}.")
    where = f"Data: {done.folder}, checksum {done.digest[:16]}…"
    return "\n".join([*lines, *done.notes, "", group_table(task), "", where])


def _next(name: str, data_root: Path) -> str:
    """The command that uses the data; a folder that was typed here must be typed there too."""
    import shlex

    source = click.get_current_context().get_parameter_source("data_root")
    typed = source is click.core.ParameterSource.COMMANDLINE
    more = f" --data-root {shlex.quote(str(data_root))}" if typed else ""
    return f"debiasbench run --dataset {name} --method erm{more}"
