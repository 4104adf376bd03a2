"""Options that say where runs are trained, and what each asks of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable


class Where(click.ParamType[str]):
    """Where runs are trained: a word, or "ray:" and the address of a cluster."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value if it is a place."""
        kind, colon, address = str(value).partition(":")
        alone = kind in {"local", "slurm"} and not colon
        if not alone and not (kind == "ray" and (address or not colon)):
            self.fail(
                f"{value!r} is no place for runs. Use local, ray, ray:HOST:PORT or slurm",
                param,
                ctx,
            )
        return str(value)


def on_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--on`."""
    return click.option(
        "--on",
        type=Where(),
        default="local",
        show_default=True,
        metavar="local|ray|ray:ADDRESS|slurm",
        help="Where runs are trained. ray starts Ray on this machine, or joins the cluster of "
        "RAY_ADDRESS; ray:ADDRESS joins a cluster, of which this machine is a node. slurm submits "
        "an array of workers, with the words after -- as options of sbatch, and shows their runs.",
    )(command)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the number of processes on a cluster, and what each asks of it."""
    options = [
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="With --on ray: largest number of processes, by default as many as the cluster "
            "has room for. With --on slurm: number of tasks of the array; each trains runs until "
            "none is left, with --jobs or --together several at once.",
        ),
        click.option(
            "--wait/--no-wait",
            default=True,
            show_default=True,
            help="With --on slurm: whether to show the runs of the array, or to end when it is "
            "submitted.",
        ),
        click.option(
            "--cpus-per-run",
            type=click.FloatRange(min=0, min_open=True),
            help="With --on ray: CPUs for each process, which are its threads, too.  [default: 1]",
        ),
        click.option(
            "--gpus-per-run",
            type=click.FloatRange(min=0),
            help="With --on ray: GPUs for each process; with 0.25, four share a GPU. With 0, runs "
            "are trained on the CPU.  [default: 1 if the cluster has GPUs, otherwise 0]",
        ),
        click.option(
            "--memory-per-run",
            type=click.FloatRange(min=0, min_open=True),
            metavar="GB",
            help="With --on ray: memory that a node must have left for each process, in GB.",
        ),
        click.option(
            "--fetch-checkpoints",
            type=click.FloatRange(min=1),
            metavar="SECONDS",
            help="With --on ray: copy checkpoints of runs from nodes that do not share the results "
            "folder, so often. Without it, a run whose node is lost starts again.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command
