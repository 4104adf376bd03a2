"""`debiasbench sweep`: train the runs of a suite that have no record yet."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import (
    check_name,
    debug_option,
    interruptible,
    load_plugins,
    overwrite_option,
    say,
)
from debiasbench.cli.launching import Launch, Launcher, launch_options
from debiasbench.cli.plan import plan_option, planned
from debiasbench.cli.runs import Runs, ending
from debiasbench.cli.searching import Given, Searching
from debiasbench.cli.session import ALL, session_options
from debiasbench.cli.session_file import SessionCommand, session_file_option
from debiasbench.common.processes import started_together

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.records.store import Overwrite
    from debiasbench.runs.session_options import SessionOptions
    from debiasbench.specs.spec import Spec


@click.command(cls=SessionCommand)
@click.argument("name", metavar="NAME|FILE.toml")
@session_options(*ALL)
@session_file_option
@overwrite_option
@click.option(
    "--keep-going/--stop-at-first-error",
    default=True,
    show_default=True,
    help="Whether to continue with other runs after a failure.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only list the runs that would be trained; with --on slurm, print the script.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Largest number of runs to start.")
@launch_options
@plan_option
@click.option("--quiet", is_flag=True, help="Do not show a progress bar.")
@debug_option
@interruptible
def sweep(
    name: str,
    options: SessionOptions,
    overwrite: Overwrite,
    keep_going: bool,
    dry_run: bool,
    limit: int | None,
    launch: Launch,
    plan: bool,
    quiet: bool,
) -> None:
    """Train the runs of a suite that have no record yet.

    After an interruption, run the same command again to continue. The command can run on several
    machines at once; if they share the results folder, no run is trained twice. If runs fail, the
    exit code is that of the first failure.
    """
    from debiasbench.specs.resolve import find_dataset
    from debiasbench.specs.suites import read

    if started_together():
        raise click.UsageError("torchrun trains one run at a time: use it with `debiasbench run`")
    plugins = load_plugins()
    find = partial(find_dataset, plugins, root=options.data_root)
    suite = read(name)
    precision = options.precision() if plan else launch.precision(options)
    if suite.search is not None:
        searched = suite.searches(plugins, find, precision=precision)
        given = Given(
            plugins,
            options,
            overwrite,
            launch,
            rule=_rule(suite.search.select),
            quiet=quiet,
            keep_going=keep_going,
            limit=limit,
        )
        searching = Searching(given, searched)
        if plan:
            say(planned(plugins, options, *searching.expected(), launch, stand_ins=suite.stand_ins))
        else:
            _search(searching, dry_run=dry_run)
        return
    named = suite.named(plugins, find, precision=precision)
    runs = Runs(plugins, options, overwrite, len(named), quiet=quiet)
    context, code = click.get_current_context(), 0
    with ending(runs):
        heads = runs.heads(named)
        pending = runs.pending(named, launch.known(options, named))
        first, others = _divided(pending, len(pending) if limit is None else limit)
        if plan:
            say(planned(plugins, options, named, first, launch, stand_ins=suite.stand_ins))
            return
        launcher = Launcher(
            launch, runs, options, named, heads, overwrite, quiet, keep_going=keep_going
        )
        if dry_run:
            say(launcher.preview(first), nl=False)
            if launch.on != "local":
                return
        elif first:
            first = runs.loadable(first)
            if keep_going or not runs.tally.codes:
                most = None if limit is None else limit - len(runs.tally.codes)
                code = launcher.attempt(first, others, most)
    say(runs.tally)
    context.exit(runs.tally.codes[0] if runs.tally.codes else code)


def _rule(name: str | None) -> str | None:
    from debiasbench.records.selection import RULES

    check_name("selection rule", name, RULES)
    return name


def _search(searching: Searching, *, dry_run: bool) -> None:
    """Run the searches of a suite, or only list what would be run."""
    context = click.get_current_context()
    with ending(searching):
        if dry_run:
            say(searching.preview(), nl=False)
        else:
            searching.run()
    context.exit(searching.code)


def _divided(specs: Mapping[str, Spec], limit: int) -> tuple[dict[str, Spec], dict[str, Spec]]:
    """Return the first `limit` specs, and the others, which may replace those run elsewhere."""
    items = list(specs.items())
    return dict(items[:limit]), dict(items[limit:])
