"""`debiasbench bench`: measure the training speed on this machine, and compare it."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import (
    arithmetic_options,
    data_root_option,
    debug_option,
    device_option,
    interruptible,
    load_plugins,
)
from debiasbench.cli.parsing import Command
from debiasbench.cli.session import session_options
from debiasbench.cli.words import spec_of, spec_options, with_short_options
from debiasbench.common.processes import started_together
from debiasbench.common.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.measure.bench import Bench
    from debiasbench.runs.session_options import SessionOptions

NAMES = {"engine": "debiasbench", "bare": "bare loop", "loader": "DataLoader"}
RATIO = ["ratio", "min to max"]


@click.command(cls=Command)
@spec_options
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="Timed steps in each round.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=7,
    show_default=True,
    help="Number of rounds; results are medians over rounds.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes of the DataLoader.  [default: one per core, at most 4]",
)
@session_options(device_option, arithmetic_options, data_root_option)
@click.option(
    "--json",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write the measurements of all rounds to a file; - prints them instead of the tables.",
)
@click.option("--quiet", is_flag=True, help="Do not show a progress bar.")
@debug_option
@interruptible
def bench(
    method: str | None,
    preset: str | None,
    dataset: str | None,
    model: str | None,
    settings: tuple[str, ...],
    sparse: str | None,
    batch_size: str | None,
    precision: str | None,
    steps: int,
    rounds: int,
    workers: int | None,
    options: SessionOptions,
    file: Path | None,
    quiet: bool,
) -> None:
    """Measure how fast a method trains on this machine.

    The same network is also trained by a bare loop without a library, and with a DataLoader that
    reads image files. The three are measured alternately in one process. A ratio of 1.00 to the
    bare loop means that debiasbench has no overhead. The default method is the first in
    `debiasbench list methods`.
    """
    import json
    from dataclasses import asdict

    from debiasbench.common.display import display
    from debiasbench.measure.bench import bench as measure

    if file is not None and not file.parent.is_dir():
        raise click.UsageError(f"--json {file}: the folder {file.parent} does not exist")
    plugins = load_plugins()
    if started_together():
        raise click.UsageError("bench measures a single process: start it without torchrun")
    settings = with_short_options(settings, batch_size=batch_size, precision=precision)
    method = method or next(iter(plugins.methods))
    spec = spec_of(plugins, options, method, dataset, model, 0, settings, sparse, preset)
    with (
        display("measurements", quiet=quiet) as progress,
        options.open(plugins, progress=progress) as session,
    ):
        measured = measure(
            session, session.resolve(spec), steps=steps, rounds=rounds, workers=workers
        )
    lines = [
        f" {json.dumps(name)}: {json.dumps(value)}" for name, value in asdict(measured).items()
    ]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if file is not None and str(file) != "-":
        file.write_text(text, "utf-8")
    click.echo(text if str(file) == "-" else report(measured), nl=str(file) != "-")


def report(measured: Bench) -> str:
    """Return the report of a benchmark: speeds, ratios, parts of a step, FLOPs."""
    return "\n\n".join(
        [
            _heading(measured),
            _training(measured),
            _evaluation(measured),
            _parts(measured),
            _arithmetic(measured),
        ]
        + (["\n".join(measured.notes)] if measured.notes else [])
    )


def _heading(measured: Bench) -> str:
    spec = measured.spec
    method, dataset, model = (spec[kind]["name"] for kind in ("method", "dataset", "model"))
    sparse = f", sparse by {spec['sparse']['name']}" if spec["sparse"] else ""
    return (
        f"{model} on {dataset} with {method}{sparse}: batches of {measured.batch_size}, "
        f"{measured.precision}{_compiled(measured)}; torch {measured.torch}, "
        f"Python {measured.python}, {measured.hardware}"
    )


def _training(measured: Bench) -> str:
    from debiasbench.measure.stopwatch import WARM_UP

    head = ["", "images/s", "ms/step", *RATIO]
    head += ["peak MB"] if measured.memory else []
    rows = []
    for name, seconds in measured.training.items():
        rate, step = measured.images_per_second(name), median(seconds) / measured.steps
        ratio = ["", ""] if name == "engine" else _ratio(measured.ratios(name))
        memory = [f"{median(measured.memory[name]) / 1e6:,.0f}"] if measured.memory else []
        rows.append([NAMES[name], f"{rate:,.0f}", f"{1000 * step:.2f}", *ratio, *memory])
    rounds = counted(len(measured.around), "round")
    return (
        f"Training, medians of {rounds} with {counted(measured.steps, 'step')} each.\n"
        "The ratio is the speed of debiasbench divided by the speed of the other loop.\n"
        + _table(rows, head)
        + f"\nIn addition, debiasbench took {1000 * median(measured.around):.0f} ms for {WARM_UP} "
        "warm-up steps, and the start and the end of the stage."
    )


def _evaluation(measured: Bench) -> str:
    rows = [
        [
            NAMES[name],
            f"{measured.evaluated / median(seconds):,.0f}",
            *([] if name == "engine" else _ratio(measured.evaluation_ratios())),
        ]
        for name, seconds in measured.evaluation.items()
    ]
    return f"Evaluation of {measured.evaluated:,} test images:\n" + _table(
        rows, ["", "images/s", *RATIO]
    )


def _parts(measured: Bench) -> str:
    step = fmean(measured.split["step"])
    rows = [
        [part, f"{1000 * fmean(seconds):.2f}", f"{100 * fmean(seconds) / step:.1f}"]
        for part, seconds in measured.split.items()
    ]
    return "Mean time of the parts of a step, with a wait for the device after each part:\n" + (
        _table(rows, ["", "ms", "%"])
    )


def _arithmetic(measured: Bench) -> str:
    rows, peak = measured.peak()
    achieved = measured.flops_per_second()
    return (
        f"A step has {3 * measured.flops / 1e9:.4g} GFLOP, so debiasbench reaches "
        f"{achieved / 1e9:,.1f} GFLOP/s. This is {100 * achieved / peak:.1f} % of\n"
        f"{peak / 1e9:,.1f} GFLOP/s, the speed of {measured.precision} products of {rows} x {rows} "
        "matrices."
    )


def _ratio(ratios: Sequence[float]) -> list[str]:
    return [f"{median(ratios):.3f}", f"{min(ratios):.2f} to {max(ratios):.2f}"]


def _table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    from tabulate import tabulate

    return tabulate(
        rows,
        headers=head,
        tablefmt="simple",
        disable_numparse=True,
        colalign=("left", *["right"] * (len(head) - 1)),
    )


def _compiled(measured: Bench) -> str:
    return "" if measured.compile == "off" else f", compiled ({measured.compile})"
