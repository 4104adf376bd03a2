"""`debiasbench compare`: run several methods on one data set, and print their leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from debiasbench.cli.common import (
    check_name,
    debug_option,
    format_option,
    interruptible,
    load_plugins,
    overwrite_option,
    print_table,
    say,
)
from debiasbench.cli.launching import Launch, Launcher, launch_options
from debiasbench.cli.plan import plan_option, planned
from debiasbench.cli.runs import Runs, ending
from debiasbench.cli.session import ALL, session_options
from debiasbench.cli.session_file import SessionCommand, session_file_option
from debiasbench.cli.site import write_pages
from debiasbench.cli.words import comparison_options, with_short_options
from debiasbench.common.processes import started_together

if TYPE_CHECKING:
    from debiasbench.records.store import Overwrite
    from debiasbench.runs.session_options import SessionOptions
    from debiasbench.specs.plugins import Plugins


@click.command(cls=SessionCommand)
@click.argument("methods", nargs=-1, required=True, metavar="METHOD...")
@comparison_options
@click.option(
    "--seeds",
    default="0-2",
    show_default=True,
    help="Seeds, such as 0-4 or 1,3,7-9. Each method is run with each seed.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Short for --set train.epochs=N.")
@session_options(*ALL)
@session_file_option
@launch_options
@plan_option
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only list the runs that would be trained; with --on slurm, print the script.",
)
@overwrite_option
@click.option("--metric", help="Rank by this accuracy.  [default: that of the data set]")
@click.option(
    "--select", help="Use the epoch selected by this rule.  [default: that of the data set]"
)
@click.option("--baseline", help="Add the paired difference to this row, such as erm.")
@format_option
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Also write the leaderboard as one page for a browser, which can be sent to others.",
)
@click.option("--quiet", is_flag=True, help="Do not show a progress bar.")
@debug_option
@interruptible
def compare(
    methods: tuple[str, ...],
    dataset: str | None,
    model: str | None,
    settings: tuple[str, ...],
    sparse: str | None,
    batch_size: str | None,
    precision: str | None,
    seeds: str,
    epochs: int | None,
    options: SessionOptions,
    launch: Launch,
    plan: bool,
    dry_run: bool,
    overwrite: Overwrite,
    metric: str | None,
    select: str | None,
    baseline: str | None,
    form: str | None,
    page: Path | None,
    quiet: bool,
) -> None:
    """Compare methods on a data set, with several seeds.

    Each METHOD is run with each seed. Then the leaderboard of these runs is printed. A run that
    has a record is not run again. After an interruption, run the same command again to continue.
    If runs fail, the exit code is that of the first failure.

    --set takes several values: rest.density=0.01,0.05 compares both densities of the method rest.
    A name without a method, such as density, applies to all methods that have this option.
    """
    from debiasbench.leaderboard.row import names_of
    from debiasbench.records.metrics import METRICS
    from debiasbench.records.selection import RULES
    from debiasbench.runs.compare import Comparison
    from debiasbench.specs.grid import read_lists
    from debiasbench.specs.grid import seeds as read_seeds

    if started_together():
        raise click.UsageError("torchrun trains one run at a time: use it with `debiasbench run`")
    # before hours of training, not after
    check_name("metric", metric, METRICS)
    check_name("selection rule", select, RULES)
    plugins = load_plugins()
    baseline = _row_name(baseline, methods, plugins)
    settings = with_short_options(
        settings, epochs=epochs, batch_size=batch_size, precision=precision
    )
    comparison = Comparison(
        methods=methods,
        seeds=read_seeds(seeds),
        dataset="digits" if dataset is None else dataset,
        model=model,
        sparse=sparse,
        settings=read_lists(settings),
    )
    precision_of_runs = options.precision() if plan else launch.precision(options)
    specs = comparison.specs(plugins, options.data_root, precision_of_runs)
    if baseline is not None:
        check_name("baseline", baseline, names_of(specs.values()))
    runs = Runs(plugins, options, overwrite, len(specs), quiet=quiet, err=True)
    context, code = click.get_current_context(), 0
    with ending(runs):
        heads = runs.heads(specs)
        pending = runs.pending(specs, launch.known(options, specs))
        if plan:
            say(planned(plugins, options, specs, pending, launch))
            return
        launcher = Launcher(launch, runs, options, specs, heads, overwrite, quiet)
        if dry_run:
            say(launcher.preview(pending), nl=False)
            return
        code = launcher.attempt(runs.loadable(pending) if pending else {})
    say(runs.tally, err=True)
    if records := runs.records(specs.values()):
        asked: dict[str, Any] = {"metric": metric, "select": select, "baseline": baseline}
        print_table(records, form, **asked)
        if page is not None:
            write_pages(records, site=None, page=page, err=True, dataset=None, **asked)
    context.exit(runs.tally.codes[0] if runs.tally.codes else code)


def _row_name(baseline: str | None, methods: tuple[str, ...], plugins: Plugins) -> str | None:
    """Return the name of a row, whose method a person may have written in another way.

    Raises `UnknownNameError` if it begins with none of the methods.
    """
    if baseline is None:
        return None
    method, space, setting = baseline.partition(" ")
    check_name("baseline", method, methods)
    return plugins.methods.name_in_spec(method) + space + setting
