"""`debiasbench work`: do the runs in a file of jobs, which another process of a command wrote."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import interruptible, load_plugins
from debiasbench.cli.parsing import Command
from debiasbench.cli.runs import Runs
from debiasbench.common.errors import Interrupted
from debiasbench.common.signals import stopped_by_signals
from debiasbench.runs.jobs import read_jobs
from debiasbench.runs.workers import Orders

if TYPE_CHECKING:
    from debiasbench.runs.jobs import Jobs


@click.command(cls=Command, hidden=True)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--pipes", required=True, help="Pipes to the process that hands out the runs.")
@interruptible
def work(file: Path, pipes: str) -> None:
    """Do the runs in FILE that another process hands out."""
    jobs = read_jobs(file)
    context = click.get_current_context()
    context.meta["debug"] = jobs.debug
    with suppress(FileNotFoundError):  # on another machine; relative paths are then an error
        os.chdir(jobs.working_folder)
    try:
        with stopped_by_signals() as stop:
            _serve(jobs, Orders(pipes, stop))
    except (KeyboardInterrupt, Interrupted) as error:
        context.exit(getattr(error, "exit_code", Interrupted.NOTHING_STORED))


def _serve(jobs: Jobs, orders: Orders) -> None:
    """Do the runs that the parent process hands out."""
    from debiasbench.common.display import is_interactive

    # several bars do not share a terminal
    quiet = jobs.quiet or is_interactive()
    runs = Runs(
        load_plugins(),
        jobs.session,
        jobs.overwrite,
        len(jobs.specs),
        quiet=quiet,
        report=orders.report,
    )
    heads = runs.heads(jobs.specs)
    try:
        for titles in orders:
            batch = {title: jobs.specs[title] for title in titles}
            runs.attempt_all(batch, heads, len(batch))
    finally:
        runs.close()
