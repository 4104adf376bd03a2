"""`debiasbench suite`: list suites, and show the runs of a suite and their expected time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import (
    data_root_option,
    debug_option,
    device_option,
    interruptible,
    load_plugins,
    results_option,
    say,
)
from debiasbench.cli.parsing import Group
from debiasbench.cli.session import session_options
from debiasbench.common.errors import StoreError
from debiasbench.common.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.measure.forecast import Forecast
    from debiasbench.runs.session_options import SessionOptions
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec
    from debiasbench.specs.suite import Block, SearchOf, Suite


COLUMNS = (
    "runs",
    "method",
    "data set",
    "model",
    "batch",
    "steps",
    "ms/step",
    "s/validation",
    "hours/run",
    "hours",
)


@click.group(cls=Group)
def suite() -> None:
    """List, show and begin suites: grids of runs for `debiasbench sweep`."""


@suite.command("list")
@debug_option
def list_() -> None:
    """List the suites that come with debiasbench."""
    from tabulate import tabulate

    from debiasbench.specs.suites import names, read

    rows = [(name, read(name).description) for name in names()]
    say(tabulate(rows, headers=("suite", "description"), tablefmt="plain"))


@suite.command()
@click.argument("name", metavar="NAME|FILE.toml")
@session_options(results_option, data_root_option, device_option)
@click.option(
    "--together",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Forecast for this number of runs at once; see `debiasbench sweep`.",
)
@click.option("--no-forecast", is_flag=True, help="Do not measure the time of the runs.")
@debug_option
@interruptible
def show(name: str, options: SessionOptions, together: int, no_forecast: bool) -> None:
    """Show the runs of a suite, and a forecast of their time.

    The forecast is for the runs that have no record yet. For it, each kind of run is trained for
    about twenty steps on this machine.
    """
    from debiasbench.records.store import Store
    from debiasbench.specs.resolve import find_dataset
    from debiasbench.specs.suites import read

    plugins = load_plugins()
    chosen = read(name)
    find = partial(find_dataset, plugins, root=options.data_root)
    specs = chosen.named(plugins, find, precision=options.precision())
    store = Store(options.results)
    done = {title for title, _ in store.all_finished(specs, "failed")}
    left = {title: spec for title, spec in specs.items() if title not in done}
    failed = sum(store.load(spec) is not None for spec in store.maybe_recorded(left).values())
    say(describe(chosen))
    say(f"\n{_training(list(specs.values()))}")
    say(
        ("" if chosen.search is None else f"\n{_searched(chosen.search)}")
        + f"\n{counted(len(specs), 'run')}, {len(done)} of them done in {options.results}"
        + (f", {failed} to run again after a failure" if failed else "")
    )
    if left and not no_forecast:
        say("\n" + _forecast(chosen, list(left.values()), plugins, options, together))


def _training(specs: Sequence[Spec]) -> str:
    """Return the settings of training that all runs share, with those of the data set."""
    from debiasbench.leaderboard.row import common
    from debiasbench.specs.words import as_text

    shared = common([spec.training for spec in specs])
    settings = ", ".join(f"{name}={as_text(value)}" for name, value in sorted(shared.items()))
    differ = sorted({name for spec in specs for name in spec.training} - shared.keys())
    return f"Training of all runs: {settings}" + (
        f". Runs differ in {', '.join(differ)}" if differ else ""
    )


def _searched(search: SearchOf) -> str:
    rule = search.select or "the rule of the data set"
    return (
        f"Searches: {search.trials} trials for each of these runs without its seed, of which the "
        f"best under {rule} is run instead. The forecast is for the runs below alone; each trial "
        "takes about as long as one of them."
    )


@suite.command()
@click.argument("file", metavar="FILE.toml", type=click.Path(path_type=Path))
@debug_option
def new(file: Path) -> None:
    """Write an example of a suite, with comments, to change as needed.

    The example trains twelve short runs on the data set digits, which is included.
    """
    from debiasbench.specs.suites import example

    if file.suffix != ".toml":
        raise click.UsageError(f"{file}: the name of a suite file ends in .toml")
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(example(file.stem))
    except FileExistsError as error:
        raise click.UsageError(f"{file} exists already: choose another name") from error
    except OSError as error:
        raise StoreError(f"Cannot write {file}: {error.strerror or error}") from error
    say(f"{file} is written. Change it, then run:")
    say(f"  debiasbench suite show {file}    # the runs, and their expected time")
    say(f"  debiasbench sweep {file}")


def describe(suite: Suite) -> str:
    """Return the description of a suite, its common options and its grids as text."""
    from tabulate import tabulate

    parts = [f"{suite.name}: {suite.description}", f"Source: {suite.source}"]
    rows = _rows("every run", suite.common)
    for i, block in enumerate(suite.blocks, 1):
        rows += _rows(f"runs {i}" if len(suite.blocks) > 1 else "these runs", block)
    parts.append(
        tabulate(rows, tablefmt="plain", disable_numparse=True, maxcolwidths=[None, 24, 66])
    )
    return "\n\n".join(parts)


def _rows(owner: str, block: Block) -> list[tuple[str, str, str]]:
    from debiasbench.specs.words import as_text, short_name

    lines = [(short_name(name), as_text(value)) for name, value in block.words.items()]
    for tied, alternatives in block.grid.items():
        values = [" ".join(map(as_text, words.values())) for words in alternatives]
        lines.append((tied, f"{', '.join(values)}  ({len(values)})"))
    return [(owner if i == 0 else "", *line) for i, line in enumerate(lines)]


def _forecast(
    suite: Suite, left: list[Spec], plugins: Plugins, options: SessionOptions, together: int
) -> str:
    from debiasbench.common.display import display
    from debiasbench.measure.forecast import forecast

    with display() as progress, options.open(plugins, progress=progress) as session:
        forecasts = forecast(session, left, stand_ins=suite.stand_ins, together=together)
    return report(forecasts, together)


def report(forecasts: list[Forecast], together: int = 1) -> str:
    """Return forecasts as text: a row for each kind of run, the total, and the assumptions."""
    from tabulate import tabulate

    from debiasbench.measure.pace import STEPS

    measured = [f for f in forecasts if not f.problem]
    parts = []
    if measured:
        table = tabulate(
            [_row(f) for f in measured],
            headers=COLUMNS,
            tablefmt="simple",
            disable_numparse=True,
            colalign=("right", "left", "left", "left", *["right"] * 6),
        )
        runs, seconds = sum(f.runs for f in measured), sum(f.runs * f.seconds for f in measured)
        memory = max(f.memory for f in measured)
        parts = [
            f"Forecast for {measured[0].hardware}, with "
            f"{'one run at a time' if together == 1 else f'{together} runs at once'}:",
            table,
            f"{counted(runs, 'run')} will take about {_hours(seconds)} hours "
            f"({seconds / 86400:.1f} days) and up to {memory / 1e9:.1f} GB of memory.",
            f"The forecast multiplies the time of {STEPS} steps and one validation of the first "
            "run of each row. It does not include the first steps, topology updates outside of "
            "these steps, and other load on the machine. Masked weights take as much time as dense "
            f"weights. {_assumption(measured)}",
        ]
    for f in forecasts:
        runs_of = f"{counted(f.runs, 'run')} of {f.spec.method.name} on {f.spec.dataset.name}"
        if f.problem:
            parts.append(f"No forecast for {runs_of}: {f.problem}")
        elif f.stand_in:
            parts.append(
                f"Artificial samples without augmentation were used for {runs_of}: {f.stand_in}"
            )
    return "\n\n".join(parts)


def _assumption(forecasts: list[Forecast]) -> str:
    """Return a sentence with the options that are assumed not to change the time."""
    differ = dict.fromkeys(name for f in forecasts for name in f.differ)
    names = ", ".join([*differ, "seed"])
    return f"Runs of a row are assumed to take the same time for all values of {names}."


def _row(f: Forecast) -> tuple[str, ...]:
    spec = f.spec
    steps, looks = sum(s.steps for s in f.stages), sum(s.looks for s in f.stages)
    stepping = sum(s.steps * s.step for s in f.stages)  # seconds
    looking = sum(s.looks * s.look for s in f.stages)  # seconds
    sparse = "" if spec.sparse is None else f" + {spec.sparse.name}"
    return (
        str(f.runs),
        spec.method.name + sparse,
        spec.dataset.name,
        spec.model.name,
        str(spec.training["batch_size"]),
        f"{steps:,}",
        f"{1000 * stepping / steps:.1f}" if steps else "—",
        f"{looking / looks:.2f}" if looks else "—",
        _hours(f.seconds),
        _hours(f.runs * f.seconds),
    )


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
