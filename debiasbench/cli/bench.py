"""`debiasbench bench`: how fast the engine trains on this machine, beside what one would write."""

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
    find_dataset,
    load_plugins,
)
from debiasbench.cli.words import spec_of, spec_options, training_settings
from debiasbench.common.processes import started_together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.measure.bench import Bench
    from debiasbench.training.precision import Compile

NAMES = {"engine": "debiasbench", "bare": "bare loop", "loader": "DataLoader"}


@click.command()
@spec_options
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="Steps of a round that are timed.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes of the DataLoader.  [default: one per core, 4 at most]",
)
@device_option
@arithmetic_options
@data_root_option
@click.option(
    "--json",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write what was measured, every round of it; - prints it in place of the table.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@debug_option
def bench(
    method: str | None,
    dataset: str | None,
    model: str | None,
    settings: tuple[str, ...],
    sparse: str | None,
    batch_size: str | None,
    precision: str | None,
    steps: int,
    rounds: int,
    workers: int | None,
    device: str,
    compile: Compile,  # noqa: A002 - what torch calls it
    deterministic: bool,
    data_root: Path,
    file: Path | None,
    quiet: bool,
) -> None:
    """Measure how fast a method trains here, beside a bare loop and a DataLoader over files.

    They take turns in one process, since timings drift; a ratio of 1.00 means no overhead. Without
    --method it is the first of `debiasbench list methods`.
    """
    import json
    from contextlib import nullcontext
    from dataclasses import asdict

    from debiasbench.cli.progress import Turns
    from debiasbench.measure.bench import bench as measure

    if file is not None and not file.parent.is_dir():
        raise click.UsageError(f"--json {file}: there is no folder {file.parent}")
    plugins = load_plugins()
    if started_together():
        raise click.UsageError("bench measures one process: start it without torchrun")
    dataset, implied = find_dataset(plugins, dataset or "digits", data_root)
    settings = (*settings, *training_settings(batch_size=batch_size, precision=precision))
    method = method or next(iter(plugins.methods))
    spec = spec_of(plugins, method, dataset, implied, model, 0, settings, sparse)
    with nullcontext() if quiet else Turns() as progress:
        found = measure(
            spec,
            plugins,
            data_root=data_root,
            compile=compile,
            deterministic=deterministic,
            steps=steps,
            rounds=rounds,
            device=device,
            workers=workers,
            progress=progress,
        )
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in asdict(found).items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if file is not None and str(file) != "-":
        file.write_text(text, "utf-8")
    click.echo(text if str(file) == "-" else report(found), nl=str(file) != "-")


def report(found: Bench) -> str:
    """Write what follows from a measurement: speeds, ratios, parts of a step, FLOPs."""
    return "\n\n".join(
        [_heading(found), _training(found), _evaluation(found), _parts(found), _arithmetic(found)]
        + (["\n".join(found.notes)] if found.notes else [])
    )


def _heading(found: Bench) -> str:
    spec = found.spec
    method, dataset, model = (spec[kind]["name"] for kind in ("method", "dataset", "model"))
    sparse = f", sparse by {spec['sparse']['name']}" if spec["sparse"] else ""
    return (
        f"{model} on {dataset} with {method}{sparse}: batches of {found.batch_size}, "
        f"{found.precision}{_compiled(found)}; torch {found.torch}, Python {found.python}, "
        f"{found.hardware}"
    )


def _training(found: Bench) -> str:
    from debiasbench.measure.forecast import WARM_UP

    head = ["", "images/s", "ms a step", "debiasbench has", "min to max"]
    head += ["MB at most"] if found.memory else []
    rows = []
    for name, seconds in found.training.items():
        rate, step = found.images_per_second(name), median(seconds) / found.steps
        ratio = ["", ""] if name == "engine" else _ratio(found.ratios(name))
        memory = [f"{median(found.memory[name]) / 1e6:,.0f}"] if found.memory else []
        rows.append([NAMES[name], f"{rate:,.0f}", f"{1000 * step:.2f}", *ratio, *memory])
    rounds = len(found.around)
    return (
        f"Training, {found.steps} steps in each of {rounds} rounds, medians:\n"
        + _table(rows, head)
        + f"\nThe {WARM_UP} steps before, and beginning and ending a stage, took debiasbench "
        f"{1000 * median(found.around):.0f} ms more."
    )


def _evaluation(found: Bench) -> str:
    rows = [
        [
            NAMES[name],
            f"{found.evaluated / median(seconds):,.0f}",
            *([] if name == "engine" else _ratio(found.evaluation_ratios())),
        ]
        for name, seconds in found.evaluation.items()
    ]
    return f"Evaluation of {found.evaluated:,} test images:\n" + _table(
        rows, ["", "images/s", "debiasbench has", "min to max"]
    )


def _parts(found: Bench) -> str:
    step = fmean(found.split["step"])
    rows = [
        [part, f"{1000 * fmean(seconds):.2f}", f"{100 * fmean(seconds) / step:.1f}"]
        for part, seconds in found.split.items()
    ]
    return "A step with a halt after each part, means:\n" + _table(rows, ["", "ms", "%"])


def _arithmetic(found: Bench) -> str:
    rows, peak = found.peak()
    achieved = found.flops_per_second()
    return (
        f"{3 * found.flops / 1e9:.4g} GFLOP a step make {achieved / 1e9:,.1f} GFLOP/s, "
        f"{100 * achieved / peak:.1f} % of the {peak / 1e9:,.1f} GFLOP/s of {found.precision} "
        f"products of {rows} x {rows} matrices."
    )


def _ratio(ratios: Sequence[float]) -> list[str]:
    return [f"{median(ratios):.3f} of it", f"{min(ratios):.2f} to {max(ratios):.2f}"]


def _table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    from tabulate import tabulate

    return tabulate(
        rows,
        headers=head,
        tablefmt="simple",
        disable_numparse=True,
        colalign=("left", *["right"] * (len(head) - 1)),
    )


def _compiled(found: Bench) -> str:
    return "" if found.compile == "off" else f", compiled ({found.compile})"
