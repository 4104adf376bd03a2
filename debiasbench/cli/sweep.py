"""`debiasbench sweep`: train the runs of a suite that have no record yet."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import click

from debiasbench.cli.common import (
    debug_option,
    interruptible,
    load_plugins,
    overwrite_option,
    say,
    together_option,
)
from debiasbench.cli.parsing import Command
from debiasbench.cli.runs import Runs
from debiasbench.cli.session import ALL, SessionOptions, session_options
from debiasbench.common.errors import Interrupted
from debiasbench.common.processes import started_together
from debiasbench.common.signals import stopped_by_signals
from debiasbench.runs.workers import Crew, Orders

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.records.store import Overwrite
    from debiasbench.runs.sweep import Attempt
    from debiasbench.specs.spec import Spec


@click.command(cls=Command)
@click.argument("name", metavar="NAME|FILE.toml")
@session_options(*ALL)
@overwrite_option
@click.option(
    "--keep-going/--stop-at-first-error",
    default=True,
    show_default=True,
    help="Whether to continue with other runs after a failure.",
)
@click.option("--dry-run", is_flag=True, help="Only list the runs that would be trained.")
@click.option("--limit", type=click.IntRange(min=1), help="Largest number of runs to start.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of processes that train at once, on the same device. On a CPU, each uses as many "
    "threads as a run alone, so results are equal; see train.threads.",
)
@together_option
@click.option("--worker", hidden=True, help="Pipes to the parent of this process.")
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
    jobs: int,
    together: int | Literal["auto"],
    worker: str | None,
    quiet: bool,
) -> None:
    """Train the runs of a suite that have no record yet.

    After an interruption, run the same command again to continue. The command can run on several
    machines at once; if they share the results folder, no run is trained twice. If runs fail, the
    exit code is that of the first failure.
    """
    from debiasbench.common.display import is_interactive
    from debiasbench.specs.resolve import find_dataset
    from debiasbench.specs.suites import read

    if jobs > 1 and together != 1:
        raise click.UsageError(
            "--jobs and --together both train several runs at once: use one of them"
        )
    if started_together():
        raise click.UsageError("torchrun trains one run at a time: use it with `debiasbench run`")
    plugins = load_plugins()
    find = partial(find_dataset, plugins, root=options.data_root)
    named = read(name).named(plugins, find, precision=options.precision())
    # several bars do not share a terminal
    quiet = quiet or (worker is not None and is_interactive())
    runs = Runs(plugins, options, overwrite, len(named), quiet=quiet)
    context, code = click.get_current_context(), 0
    try:
        if worker is not None:
            _work(worker, runs, named)
            return
        heads, pending = runs.heads(named), runs.pending(named)
        first, others = _divided(pending, len(pending) if limit is None else limit)
        if dry_run:
            say("".join(f"{heads[label]}\n" for label in first), nl=False)
        elif first:
            first = runs.loadable(first)
            if runs.tally.codes and not keep_going:
                pass
            elif jobs > 1:
                code = _share_out(jobs, runs, heads, list(first), keep_going=keep_going)
            else:
                most = None if limit is None else limit - len(runs.tally.codes)
                runs.attempt_all(
                    {**first, **others}, heads, together, keep_going=keep_going, limit=most
                )
    except (KeyboardInterrupt, Interrupted) as error:
        if worker is None:
            runs.say_interrupted()
        context.exit(getattr(error, "exit_code", Interrupted.NOTHING_STORED))
    finally:
        runs.close()
    say(runs.tally)
    context.exit(runs.tally.codes[0] if runs.tally.codes else code)


def _divided(specs: Mapping[str, Spec], limit: int) -> tuple[dict[str, Spec], dict[str, Spec]]:
    """Return the first `limit` specs, and the others, which may replace those run elsewhere."""
    items = list(specs.items())
    return dict(items[:limit]), dict(items[limit:])


def _share_out(
    jobs: int, runs: Runs, heads: Mapping[str, str], labels: list[str], *, keep_going: bool
) -> int:
    """Let several processes of this command attempt the runs.

    Returns the exit code of a process that left runs to do although it did not fail in one.
    """
    tally = runs.tally
    context = click.get_current_context()

    with stopped_by_signals() as stop:

        def report(label: str, outcome: Attempt) -> bool:
            tally.count(outcome)
            stop.resumable |= outcome.state == "trained"
            if outcome.problem:
                say(f"{heads[label]}  failed: {outcome.problem}", err=True)
            return keep_going or not tally.codes

        debug = ["--debug"] if context.meta.get("debug") else []
        crew = Crew(["sweep", *debug, *_words(context, jobs=1)], report, stop)
        crew.run(labels, jobs)
        stop.check()
    if crew.code and tally.left:
        say("Error: a process ended before all runs were attempted", err=True)
        return crew.code
    return 0


def _work(ends: str, runs: Runs, named: Mapping[str, Spec]) -> None:
    """Attempt the runs that the parent process hands out."""
    heads = runs.heads(named)
    with stopped_by_signals() as stop:
        orders = Orders(ends, stop)
        for label in orders:
            orders.report(runs.attempt(heads[label], named[label]))


def _words(context: click.Context, **other: object) -> list[str]:
    """Return the arguments of the current command as words, with the values in `other` replaced."""
    options: list[str] = []
    arguments: list[str] = []
    for parameter in context.command.params:
        value = {**context.params, **other}.get(parameter.name or "")
        if isinstance(parameter, click.Argument):
            arguments.append(str(value))
        elif isinstance(value, bool):
            options += (parameter.opts if value else parameter.secondary_opts)[:1]
        elif value is not None:
            options.append(f"{parameter.opts[0]}={value}")
    return [*options, "--", *arguments]  # an argument may begin with a dash
