"""`debiasbench reproduce`: run a suite, and judge published values by its records."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import (
    debug_option,
    format_option,
    interruptible,
    load_plugins,
    overwrite_option,
    say,
    table_format,
)
from debiasbench.cli.launching import Launch, Launcher, launch_options
from debiasbench.cli.plan import plan_option, planned
from debiasbench.cli.runs import Runs, ending
from debiasbench.cli.session import ALL, session_options
from debiasbench.cli.session_file import SessionCommand, session_file_option
from debiasbench.common.processes import started_together

if TYPE_CHECKING:
    from debiasbench.records.store import Overwrite
    from debiasbench.runs.session_options import SessionOptions


@click.command(cls=SessionCommand)
@click.argument("name", metavar="NAME")
@click.option(
    "--values",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Published values of a suite, a TOML file. NAME is then the suite or its file.  "
    "[default: those that come with debiasbench for this suite]",
)
@click.option(
    "--run/--no-run",
    default=True,
    show_default=True,
    help="Whether to train the runs that have no record yet, or to judge the records at hand.",
)
@session_options(*ALL)
@session_file_option
@overwrite_option
@launch_options
@plan_option
@format_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@click.option("--quiet", is_flag=True, help="Do not show a progress bar.")
@debug_option
@interruptible
def reproduce(
    name: str,
    values: Path | None,
    run: bool,
    options: SessionOptions,
    overwrite: Overwrite,
    launch: Launch,
    plan: bool,
    form: str | None,
    out: Path | None,
    quiet: bool,
) -> None:
    """Reproduce the published values of a suite.

    Trains the runs of the suite NAME that have no record yet, and prints each published value
    beside the result of the same runs here, with a verdict. After an interruption, run the same
    command again to continue.
    """
    from debiasbench.leaderboard.published import read as read_values
    from debiasbench.leaderboard.reproduction_text import judged
    from debiasbench.specs.resolve import find_dataset
    from debiasbench.specs.suites import read

    if started_together():
        raise click.UsageError("torchrun trains one run at a time: use it with `debiasbench run`")
    published = read_values(name if values is None else values)
    suite = read(name)
    if suite.name != published.suite:
        raise click.UsageError(
            f"{values} has values of the suite {published.suite}, not of {suite.name}"
        )
    plugins = load_plugins()
    find = partial(find_dataset, plugins, root=options.data_root)
    here = plan or not run
    precision = options.precision() if here else launch.precision(options)
    named = suite.named(plugins, find, precision=precision)
    runs = Runs(plugins, options, overwrite, len(named), quiet=quiet, err=True)
    context, code = click.get_current_context(), 0
    with ending(runs):
        heads, pending = runs.heads(named), runs.pending(named, launch.known(options, named))
        if plan:
            say(planned(plugins, options, named, pending, launch, stand_ins=suite.stand_ins))
            return
        if run and pending:
            launcher = Launcher(launch, runs, options, named, heads, overwrite, quiet)
            code = launcher.attempt(runs.loadable(pending))
    if run:
        say(runs.tally, err=True)
    form, styled = table_format(form, out)
    text, problems = judged(published, named.values(), options.results, form, styled=styled)
    for problem in problems:
        say(f"Warning: {problem}", err=True)
    if out is None:
        click.echo(text, nl=False)
    else:
        from debiasbench.records.store import write_text

        write_text(out, text)
    context.exit(runs.tally.codes[0] if runs.tally.codes else code)
