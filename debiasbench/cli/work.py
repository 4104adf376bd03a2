"""`debiasbench work`: do the runs in a file of jobs, which another process of a command wrote."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import interruptible, load_plugins, say
from debiasbench.cli.parsing import Command
from debiasbench.cli.runs import Runs
from debiasbench.common.errors import Interrupted
from debiasbench.common.signals import stopped_by_signals
from debiasbench.runs.jobs import read_jobs
from debiasbench.runs.workers import Orders, hiring, wait_for

if TYPE_CHECKING:
    from debiasbench.common.signals import Stop
    from debiasbench.runs.jobs import Jobs
    from debiasbench.runs.sweep import Attempt


@click.command(cls=Command, hidden=True)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--pipes", help="Pipes to the process that hands out the runs.")
@click.option(
    "--pull",
    type=click.IntRange(min=0),
    metavar="K",
    help="Take runs from the folder of FILE, as worker K of several.",
)
@interruptible
def work(file: Path, pipes: str | None, pull: int | None) -> None:
    """Do the runs in FILE, those that another process hands out or those that are left."""
    if (pipes is None) == (pull is None):
        raise click.UsageError("Give either --pipes or --pull")
    jobs = read_jobs(file)
    file = file.absolute()
    context = click.get_current_context()
    context.meta["debug"] = jobs.debug
    with suppress(FileNotFoundError):  # on another machine; relative paths are then an error
        os.chdir(jobs.working_folder)
    try:
        with stopped_by_signals() as stop:
            if pipes is not None:
                _serve(jobs, Orders(pipes, stop))
            elif pull is not None:
                context.exit(_pull(jobs, file, pull, stop))
    except (KeyboardInterrupt, Interrupted) as error:
        context.exit(getattr(error, "exit_code", Interrupted.NOTHING_STORED))


def _serve(jobs: Jobs, orders: Orders) -> None:
    """Do the runs that the parent process hands out."""
    from debiasbench.common.display import is_interactive

    # several bars do not share a terminal
    quiet = jobs.quiet or is_interactive()
    plugins = load_plugins()
    for problem in plugins.load_files(jobs.files):  # the runs that need the file then fail
        say(f"Warning: {problem}", err=True)
    runs = Runs(
        plugins,
        jobs.session,
        jobs.overwrite,
        len(jobs.specs),
        quiet=quiet,
        report=orders.report,
        trial=jobs.trial,
    )
    heads = runs.heads(jobs.specs)
    try:
        for titles in orders:
            batch = {title: jobs.specs[title] for title in titles}
            runs.attempt_all(batch, heads, len(batch))
    finally:
        runs.close()


def _pull(jobs: Jobs, file: Path, number: int, stop: Stop) -> int:
    """Do the runs of a folder that no other worker does; return the exit code."""
    from debiasbench.runs.job_folder import JobFolder
    from debiasbench.runs.pull import Puller
    from debiasbench.specs.plugins import Plugins

    # only the processes of this worker need the code of strangers
    plugins = Plugins(installed=False)
    runs = Runs(plugins, jobs.session, jobs.overwrite, len(jobs.specs), trial=jobs.trial)
    heads = runs.heads(jobs.specs)

    def report(title: str, outcome: Attempt) -> None:
        runs.count(heads[title], outcome)

    restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    folder = JobFolder(file.parent)
    hire = hiring(file, jobs.session.device, jobs.processes)
    puller = Puller(jobs, folder, number, hire, wait_for, report, stop, restart=restart)
    code = puller.run()
    say(f"Worker {number}: {runs.tally}", err=True)
    return code
