"""`debiasbench leaderboard`: tables that compare any number of records."""

from __future__ import annotations

from pathlib import Path

import click

from debiasbench.cli.common import debug_option, format_option, say, table_format
from debiasbench.cli.parsing import Command
from debiasbench.common.wording import counted

PAGES = (Path("leaderboard/README.md"), Path("README.md"))


@click.command(cls=Command)
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option("--dataset", help="Use only the records of this data set.")
@click.option("--metric", help="Rank by this accuracy.  [default: that of the data set]")
@click.option(
    "--select", help="Use the epoch selected by this rule.  [default: that of the data set]"
)
@click.option("--baseline", help="Add the paired difference to this row, such as erm.")
@click.option(
    "--pivot",
    metavar="OPTION",
    help="Make one table with a column for each value of an option, such as dataset.ratio.",
)
@click.option(
    "--panel",
    metavar="groups",
    help="Compare what methods inferred of the training samples, such as groups, with the truth.",
)
@click.option(
    "--columns",
    metavar="NAME,...",
    help="Show these columns: method, accuracy, interval, seeds, difference, a metric, density, "
    "parameters, inference_flops, training_flops or seconds. With --panel: method, seeds, "
    "conflict_recall, conflict_precision, worst_group_recall, auc, infer_flops, infer_seconds, "
    "training_flops or seconds.",
)
@click.option(
    "--sort",
    metavar="COLUMN",
    help="Order the rows of each section by this column.  [default: accuracy, with --panel auc]",
)
@format_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@click.option(
    "--index/--no-index",
    default=True,
    show_default=True,
    help="Whether to read and verify only the records that have changed since the last time. The "
    "index of each folder is in the user's cache; see `debiasbench cache ls`.",
)
@click.option("--strict", is_flag=True, help="End with exit code 9 if any record is bad.")
@click.option(
    "--check",
    is_flag=True,
    help="Check that the tables in Markdown pages match their records. Then RESULTS are pages; the "
    "default is leaderboard/README.md and README.md.",
)
@click.option("--update", is_flag=True, help="Update the tables in these pages.")
@debug_option
def leaderboard(
    results: tuple[Path, ...],
    dataset: str | None,
    metric: str | None,
    select: str | None,
    baseline: str | None,
    pivot: str | None,
    panel: str | None,
    columns: str | None,
    sort: str | None,
    form: str | None,
    out: Path | None,
    index: bool,
    strict: bool,
    check: bool,
    update: bool,
) -> None:
    """Print tables that compare the records in RESULTS.

    RESULTS are files or folders; the default is the folder results. Records that are damaged or
    contradict themselves are left out, with a warning on stderr; see `debiasbench verify`.
    """
    if check or update:
        _check_pages(results or PAGES, write=update)
        return

    from debiasbench.common.errors import RecordError
    from debiasbench.leaderboard import table
    from debiasbench.records.store import write_text

    form, styled = table_format(form, out)
    text, problems = table(
        results or (Path("results"),),
        form,
        dataset=dataset,
        metric=metric,
        select=select,
        baseline=baseline,
        pivot=pivot,
        panel=panel,
        columns=columns,
        sort=sort,
        styled=styled,
        index=index,
    )
    for problem in problems:
        say(f"Warning: {problem}", err=True)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)
    if strict and problems:
        raise RecordError(f"{counted(len(problems), 'bad record')}: see above")


def _check_pages(pages: tuple[Path, ...], *, write: bool) -> None:
    from debiasbench.common.errors import RecordError
    from debiasbench.leaderboard.page import regenerated
    from debiasbench.records.store import write_text

    # all tables before the first page is written
    texts = {page: regenerated(page) for page in pages}
    for page, (text, expected) in texts.items():
        if write:
            if text != expected:
                write_text(page, expected)
            say(f"{page} is up to date")
        elif text != expected:
            raise RecordError(
                f"{page} does not match its records: run `debiasbench leaderboard --update {page}`"
            )
        else:
            say(f"{page} matches its records")
