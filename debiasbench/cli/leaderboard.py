"""`debiasbench leaderboard`: tables that compare any number of records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from debiasbench.cli.common import debug_option, format_option, say, table_format
from debiasbench.cli.parsing import Command
from debiasbench.cli.verify import check_places
from debiasbench.common.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    "--across",
    is_flag=True,
    help="Compare methods over all data sets: points, mean ranks, and which is better on how many.",
)
@click.option(
    "--protocol",
    is_flag=True,
    help="Compare the selection rules: points and ranks of the same runs under each of them, and "
    "what more labels are worth.",
)
@click.option(
    "--sensitivity",
    is_flag=True,
    help="Compare who is best under each selection rule, metric and validation split (the option "
    "val of data sets); with --baseline, how much of each gain is due to selection.",
)
@click.option(
    "--columns",
    metavar="NAME,...",
    help="Show these columns: method, accuracy, interval, seeds, difference, rank, a metric, "
    "density, parameters, inference_flops, training_flops, seconds, search_flops or "
    "search_seconds. With --panel: method, seeds, "
    "conflict_recall, conflict_precision, worst_group_recall, auc, infer_flops, infer_seconds, "
    "training_flops or seconds.",
)
@click.option(
    "--sort",
    metavar="COLUMN",
    help="Order the rows of each section by this column.  [default: accuracy, with --panel auc]",
)
@click.option(
    "--plot",
    type=click.Choice(["density", "pareto", "groups", "ranks"]),
    help="Draw a figure instead of a table, into the file of --out: accuracy against density or "
    "against a cost, accuracy of each group, or ranks.",
)
@click.option(
    "--cost",
    metavar="NAME",
    help="Cost of --plot pareto: inference_flops, training_flops, parameters or seconds.  "
    "[default: inference_flops]",
)
@click.option(
    "--method",
    "methods",
    metavar="NAME",
    multiple=True,
    help="Only the records of this method; with --plot density or groups also the row with this "
    "name. Can be used several times.",
)
@format_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@click.option(
    "--site",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write pages for a browser into this folder, with a page for each data set, method and "
    "record, instead of printing tables.",
)
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write one page for a browser, which can be sent to others.",
)
@click.option(
    "--index/--no-index",
    default=True,
    show_default=True,
    help="Whether to read and verify only the records that have changed since the last time. The "
    "index of each folder is in the user's cache; see `debiasbench cache ls`.",
)
@click.option("--strict", is_flag=True, help="End with exit code 9 if any record is bad.")
@click.option(
    "--verify",
    "verify_only",
    is_flag=True,
    help="Print what `debiasbench verify` finds in the records, instead of tables; the exit code "
    "is 9 if any record is bad.",
)
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
    across: bool,
    protocol: bool,
    sensitivity: bool,
    columns: str | None,
    sort: str | None,
    plot: str | None,
    cost: str | None,
    methods: tuple[str, ...],
    form: str | None,
    out: Path | None,
    site: Path | None,
    page: Path | None,
    index: bool,
    strict: bool,
    verify_only: bool,
    check: bool,
    update: bool,
) -> None:
    """Print tables that compare the records in RESULTS, or draw a figure of one table.

    RESULTS are files or folders; the default is the folder results. Records that are damaged or
    contradict themselves are left out, with a warning on stderr; see `debiasbench verify`.
    """
    asked: dict[str, Any] = {
        "dataset": dataset,
        "metric": metric,
        "select": select,
        "baseline": baseline,
    }
    tables: dict[str, Any] = {"pivot": pivot, "panel": panel, "columns": columns, "sort": sort}
    tables |= {"across": across, "protocol": protocol, "sensitivity": sensitivity}
    written = {"format": form, "out": out, "site": site, "page": page, "plot": plot, "cost": cost}
    alone = {"check": check, "update": update, "verify": verify_only}
    for name, is_given in alone.items():
        if is_given:
            others: dict[str, object] = {o: given for o, given in alone.items() if o != name}
            others |= {"method": methods or None, "strict": strict, "no-index": not index}
            _only_with_tables(f"--{name}", **asked, **tables, **written, **others)
    if check or update:
        _check_pages(results or PAGES, write=update)
        return
    if verify_only:
        check_places(results or (Path("results"),))
        return

    from debiasbench.common.errors import OptionError
    from debiasbench.leaderboard import table

    places = results or (Path("results"),)
    if plot is not None:
        _only_with_tables("--plot", **tables, format=form, site=site, page=page)
        _plot(places, plot, out, strict=strict, cost=cost, methods=methods, index=index, **asked)
        return
    if cost is not None:
        raise OptionError("--cost chooses what --plot draws: add --plot pareto")
    if site is not None or page is not None:
        from debiasbench.cli.site import write_pages

        given = "--site" if site is not None else "--page"
        _only_with_tables(given, **tables, format=form, out=out)
        problems = write_pages(places, site=site, page=page, index=index, methods=methods, **asked)
        _warned(problems, strict=strict)
        return
    form, styled = table_format(form, out)
    text, problems = table(
        places,
        form,
        **asked,
        **tables,
        styled=styled,
        index=index,
        methods=methods,
    )
    if out is None:
        click.echo(text, nl=False)
    else:
        from debiasbench.records.store import write_text

        write_text(out, text)
    _warned(problems, strict=strict)


def _warned(problems: Sequence[str], *, strict: bool) -> None:
    from debiasbench.common.errors import RecordError

    for problem in problems:
        say(f"Warning: {problem}", err=True)
    if strict and problems:
        raise RecordError(f"{counted(len(problems), 'bad record')}: see above")


def _only_with_tables(instead: str, **given: object) -> None:
    """Raise `OptionError` for an option that has no meaning where no table is printed."""
    from debiasbench.common.errors import OptionError

    for name, value in given.items():
        if value not in {None, False}:
            raise OptionError(f"{instead} cannot be combined with --{name}")


def _plot(
    places: tuple[Path, ...], kind: str, out: Path | None, *, strict: bool, **asked: Any
) -> None:
    """Draw a figure into a file, and print a caption for it."""
    from debiasbench.common.errors import OptionError
    from debiasbench.leaderboard.figures.make import make
    from debiasbench.leaderboard.figures.plot import FORMS, plot
    from debiasbench.records.store import write_bytes

    form = "" if out is None else out.suffix.lower().removeprefix(".")
    if out is None or form not in FORMS:
        ends = ", ".join(f".{form}" for form in FORMS)
        raise OptionError(f"--plot needs --out FILE with a name that ends with one of {ends}")
    figure, problems = make(places, kind, **asked)
    write_bytes(out, plot(figure, form))
    say(f"{out}: {figure.caption}")
    _warned(problems, strict=strict)


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
