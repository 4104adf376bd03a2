"""`debiasbench leaderboard`: comparative tables over any number of records."""

from __future__ import annotations

from pathlib import Path

import click

from debiasbench.cli.common import debug_option

PAGES = (Path("leaderboard/README.md"), Path("README.md"))


@click.command()
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option("--dataset", help="Only this data set.")
@click.option("--metric", help="Rank by this accuracy.  [default: the data set's]")
@click.option("--select", help="Take the epoch this rule selects.  [default: the data set's]")
@click.option("--baseline", help="Add the paired difference to this row, such as erm.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "latex", "csv", "json", "html-table"]),
    default="markdown",
    show_default=True,
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@click.option("--strict", is_flag=True, help="End with exit code 9 if any record was bad.")
@click.option(
    "--check",
    is_flag=True,
    help="Check that Markdown pages (RESULTS; default: leaderboard/README.md and README.md) show "
    "what their records make.",
)
@click.option("--update", is_flag=True, help="Bring such pages up to date instead.")
@debug_option
def leaderboard(
    results: tuple[Path, ...],
    dataset: str | None,
    metric: str | None,
    select: str | None,
    baseline: str | None,
    form: str,
    out: Path | None,
    strict: bool,
    check: bool,
    update: bool,
) -> None:
    """Compare the records in RESULTS (files or folders; default: results).

    Bad records are named on stderr and left out.
    """
    if check or update:
        for page in results or PAGES:
            _keep_page(page, write=update)
        return

    from debiasbench.common.errors import RecordError
    from debiasbench.leaderboard import table
    from debiasbench.records.store import write_text

    text, problems = table(
        results or (Path("results"),),
        form,
        dataset=dataset,
        metric=metric,
        select=select,
        baseline=baseline,
    )
    for problem in problems:
        click.echo(f"Warning: {problem}", err=True)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)
    if strict and problems:
        raise RecordError(f"{len(problems)} bad records: see above")


def _keep_page(page: Path, *, write: bool) -> None:
    from debiasbench.common.errors import RecordError
    from debiasbench.leaderboard.page import regenerated
    from debiasbench.records.store import write_text

    now, should = regenerated(page)
    if write:
        write_text(page, should)
        click.echo(f"{page} is up to date")
    elif now != should:
        raise RecordError(
            f"{page} does not match its records: run `debiasbench leaderboard --update {page}`"
        )
    else:
        click.echo(f"{page} matches its records")
