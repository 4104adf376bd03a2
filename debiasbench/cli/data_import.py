"""`debiasbench data import`: import your own images as a data set for `run`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import data_root_option, debug_option, load_plugins, say
from debiasbench.cli.parsing import Command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.files.importing import Finished, Problem

MOST_SHOWN = 50  # bad images that are printed; --report writes all


@click.command("import", cls=Command)
@click.argument("name")
@click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of images. Without --table it must be a tree, CLASS/BIAS/FILE or "
    "SPLIT/CLASS/BIAS/FILE.",
)
@click.option(
    "--table",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV file in UTF-8 with a header and one row per image; separated by tabs if its name "
    "ends in .tsv.",
)
@click.option("--label", metavar="COLUMN", help="Column of the class.")
@click.option(
    "--bias",
    multiple=True,
    metavar="COLUMN",
    help="Column of the bias attribute. Can be used several times: the values are combined, "
    "such as place=water,season=winter.",
)
@click.option(
    "--file",
    metavar="COLUMN",
    help="Column of the file names, relative to the folder of images.  [default: detected]",
)
@click.option(
    "--split",
    metavar="COLUMN",
    help="Column of the split: train, val or test, or 0, 1, 2.  [default: each group is split at "
    "random, 70/10/20 %]",
)
@click.option(
    "--size",
    metavar="N|HxW",
    help="Scale to N x N pixels, or to height H and width W.  [default: the size of the images, "
    "which must all have the same]",
)
@click.option(
    "--aligned",
    multiple=True,
    metavar="CLASS:BIAS,...",
    help="Bias values that are aligned with a class.  [default: those that are more frequent with "
    "the class than by chance in training, P(bias | class) > P(bias)]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the random splits, if there is no column of splits, and of --balance-test.",
)
@click.option(
    "--balance-test",
    is_flag=True,
    help="Keep the same number of test images of each group: as many as the smallest has. The "
    "others are left out.",
)
@click.option("--skip-bad", is_flag=True, help="Skip images that cannot be imported.")
@click.option(
    "--convert",
    is_flag=True,
    help="Also accept palette, CMYK, 16-bit and transparent images, and convert them to 8-bit RGB.",
)
@click.option("--replace", is_flag=True, help="Replace an existing import of this name.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Write all bad images to this CSV file. At most {MOST_SHOWN} are printed.",
)
@data_root_option
@click.option("--quiet", is_flag=True, help="Do not show a progress bar.")
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
    balance_test: bool,
    skip_bad: bool,
    convert: bool,
    replace: bool,
    report: Path | None,
    data_root: Path,
    quiet: bool,
) -> None:
    """Import your own images as the data set NAME.

    Use it with `debiasbench run --dataset NAME`. The images are decoded, checked and written once,
    with checksums. The originals are not needed afterwards. If images are bad, all of them are
    listed and nothing is imported: fix them, or skip them with --skip-bad.
    """
    from debiasbench.common.display import display
    from debiasbench.files.importing import BadRows, Source, import_data

    if table is None and (label or bias or file or split):
        raise click.UsageError("--label, --bias, --file and --split require --table")
    if table is not None and not (label and bias):
        raise click.UsageError("--table requires --label COLUMN and --bias COLUMN")
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
        balance_test=balance_test,
    )
    plugins = load_plugins()
    try:
        with display("images", quiet=quiet) as progress:
            finished = import_data(
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
    _list(finished.left_out, report)
    for warning in finished.warnings:
        say(f"Warning: {warning}", err=True)
    say(_summary(name, finished))
    say(f"Next: {_next_command(name, data_root)}")


def _size(text: str | None) -> tuple[int, int] | None:
    """Read "64" or "48x64" as (height, width)."""
    if text is None:
        return None
    sides = re.fullmatch(r"(\d{1,5})(?:[x×](\d{1,5}))?", text.strip().lower())
    if sides is None or "0" in {s.lstrip("0") or "0" for s in sides.groups() if s}:
        raise click.UsageError(f"--size {text}: use N or HxW in pixels, such as 64 or 48x64")
    height = int(sides[1])
    return height, int(sides[2] or height)


def _list(problems: Sequence[Problem], report: Path | None) -> None:
    """Print the first bad images on stderr, and write all of them to a file if requested."""
    for problem in problems[:MOST_SHOWN]:
        say(str(problem), err=True)
    if len(problems) > MOST_SHOWN:
        rest = len(problems) - MOST_SHOWN
        advice = (
            f"{report} lists all of them" if report else "Use --report FILE to list all of them"
        )
        say(f"and {rest:,} more. {advice}", err=True)
    if report is not None:
        _write(problems, report)


def _write(problems: Sequence[Problem], report: Path) -> None:
    import csv
    import io

    from debiasbench.records.store import write_text

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("line", "file", "problem"))
    writer.writerows((p.line or "", p.file, p.message) for p in problems)
    write_text(report, text.getvalue())


def _summary(name: str, finished: Finished) -> str:
    from debiasbench.files.importing import bad_rows
    from debiasbench.files.sheet import group_table

    task = finished.task
    total = sum(len(split) for split in task.splits().values())
    _, height, width = task.shape.input
    lines = [
        f"{name}: {total:,} images of {height}x{width} pixels, {len(task.classes)} classes, "
        f"{len(task.biases)} bias values"
    ]
    if finished.left_out:
        lines.append(f"Skipped bad images: {bad_rows(finished.left_out):,}.")
    where = f"Data: {finished.folder}, checksum {finished.digest[:16]}…"
    return "\n".join([*lines, *finished.notes, "", group_table(task), "", where])


def _next_command(name: str, data_root: Path) -> str:
    """Return the command that uses the data; it repeats --data-root if the user typed it."""
    import shlex

    source = click.get_current_context().get_parameter_source("data_root")
    typed = source is click.core.ParameterSource.COMMANDLINE
    more = f" --data-root {shlex.quote(str(data_root))}" if typed else ""
    return f"debiasbench run --dataset {name} --method erm{more}"
