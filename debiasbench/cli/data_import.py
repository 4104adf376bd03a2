"""`debiasbench data import`: import your own images, texts or tables as a data set for `run`."""

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

MODELS = {"text": "hf:bert-base-uncased", "row": "mlp"}  # instead of that for images
MOST_SHOWN = 50  # bad rows that are printed; --report writes all


@click.command("import", cls=Command)
@click.argument("name")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of images. Without --table it must be a tree, CLASS/BIAS/FILE or "
    "SPLIT/CLASS/BIAS/FILE.",
)
@click.option(
    "--table",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV file in UTF-8 with a header and one row per sample; separated by tabs if its name "
    "ends in .tsv.",
)
@click.option("--text", metavar="COLUMN", help="Column of texts, instead of images.")
@click.option(
    "--text-pair",
    metavar="COLUMN",
    help="Column of a second text of each sample, such as the hypothesis of a premise.",
)
@click.option(
    "--features",
    is_flag=False,
    flag_value="*",
    metavar="[COLUMN,...]",
    help="Columns of numbers and categories, instead of images; without names, all columns that "
    "are not label, bias or split. Numbers are standardised by the training split.",
)
@click.option(
    "--categorical",
    multiple=True,
    metavar="COLUMN",
    help="Column of --features whose numbers are categories. Can be used several times.",
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
    help="Keep the same number of test samples of each group: as many as the smallest has. The "
    "others are left out.",
)
@click.option("--skip-bad", is_flag=True, help="Skip rows that cannot be imported.")
@click.option(
    "--convert",
    is_flag=True,
    help="Also accept palette, CMYK, 16-bit and transparent images, and convert them to 8-bit RGB.",
)
@click.option("--replace", is_flag=True, help="Replace an existing import of this name.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Write all bad rows to this CSV file. At most {MOST_SHOWN} are printed.",
)
@data_root_option
@click.option("--quiet", is_flag=True, help="Do not show a progress bar.")
@debug_option
def import_(
    name: str,
    images: Path | None,
    table: Path | None,
    text: str | None,
    text_pair: str | None,
    features: str | None,
    categorical: tuple[str, ...],
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
    """Import your own images, texts or table as the data set NAME.

    Use it with `debiasbench run --dataset NAME`. The samples are checked and written once, with
    checksums. The originals are not needed afterwards. If rows are bad, all of them are listed and
    nothing is imported: fix them, or skip them with --skip-bad.
    """
    from debiasbench.common.display import display
    from debiasbench.files.importing import BadRows, Source, import_data

    _check_kind(images, text, text_pair, features, categorical)
    if images is None and table is None:
        raise click.UsageError("--text and --features require --table")
    if images is None and (used := [n for n, v in _of_images(file, size, convert) if v]):
        raise click.UsageError(f"{used[0]} requires --images")
    if table is None and (label or bias or file or split):
        raise click.UsageError("--label, --bias, --file and --split require --table")
    if table is not None and not (label and bias):
        raise click.UsageError("--table requires --label COLUMN and --bias COLUMN")
    source = Source(
        images=images or Path(),
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
        text=tuple(column for column in (text, text_pair) if column is not None),
        features=_columns(features),
        categorical=categorical,
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
    say(_summary(name, finished, source.noun))
    say(f"Next: {_next_command(name, data_root, source.noun)}")


def _check_kind(
    images: Path | None,
    text: str | None,
    text_pair: str | None,
    features: str | None,
    categorical: tuple[str, ...],
) -> None:
    """Raise `UsageError` unless there are options for one kind of samples."""
    kinds = {"--images": images, "--text": text, "--features": features}
    given = [option for option, value in kinds.items() if value is not None]
    if len(given) != 1:
        found = f", not {' and '.join(given)}" if given else ""
        raise click.UsageError(
            f"Use one of --images FOLDER, --text COLUMN and --features{found}: images, texts or "
            "numbers"
        )
    if text_pair is not None and text is None:
        raise click.UsageError("--text-pair requires --text")
    if categorical and features is None:
        raise click.UsageError("--categorical requires --features")


def _of_images(file: str | None, size: str | None, convert: bool) -> list[tuple[str, object]]:
    """Return the options that only images have, and their values."""
    return [("--file", file), ("--size", size), ("--convert", convert)]


def _columns(text: str | None) -> tuple[str, ...]:
    """Read the names of columns, separated by commas; a name with a comma is quoted as in CSV."""
    import csv

    from debiasbench.files.importing import EVERY

    if text is None or text == "*":
        return () if text is None else EVERY
    columns = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if not all(columns):
        raise click.UsageError(f"--features {text!r}: write names of columns, separated by commas")
    return tuple(columns)


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
    """Print the first bad rows on stderr, and write all of them to a file if requested."""
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


def _summary(name: str, finished: Finished, noun: str) -> str:
    from debiasbench.common.wording import counted
    from debiasbench.files.importing import bad_rows
    from debiasbench.files.sheet import group_table

    task = finished.task
    total = sum(len(split) for split in task.splits().values())
    shape = task.shape
    if noun == "text":
        kind = "pairs of texts" if shape.inputs["texts"] == (2,) else "texts"
    elif noun == "row":
        kind = f"rows of {counted(shape.features, 'feature')}"
    else:
        kind = f"images of {shape.input[1]}x{shape.input[2]} pixels"
    lines = [
        f"{name}: {total:,} {kind}, {len(task.classes)} classes, {len(task.biases)} bias values"
    ]
    if finished.left_out:
        lines.append(f"Skipped bad {noun}s: {bad_rows(finished.left_out):,}.")
    where = f"Data: {finished.folder}, checksum {finished.digest[:16]}…"
    return "\n".join([*lines, *finished.notes, "", group_table(task), "", where])


def _next_command(name: str, data_root: Path, noun: str) -> str:
    """Return the command that uses the data; it repeats --data-root if the user typed it."""
    import shlex

    source = click.get_current_context().get_parameter_source("data_root")
    typed = source is click.core.ParameterSource.COMMANDLINE
    more = f" --data-root {shlex.quote(str(data_root))}" if typed else ""
    model = f" --model {MODELS[noun]}" if noun in MODELS else ""
    return f"debiasbench run --dataset {name} --method erm{model}{more}"
