"""What is typed to say a run: options that several commands share, and the spec they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.resolve import Precision
    from debiasbench.specs.spec import Spec

_OPTIONS = [
    click.option("--method", help="Method; `debiasbench list methods` names them."),
    click.option("--dataset", help="Data set.  [default: digits]"),
    click.option("--model", help="Network.  [default: what the data set recommends]"),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="Set an option of the method, or dataset.NAME, model.NAME, train.NAME, sparse.NAME. "
        "Repeatable. `debiasbench show` lists the options.",
    ),
    click.option(
        "--sparse",
        metavar="NAME[:OPTION=VALUE,...]",
        help="Make every stage sparse, such as rigl:density=0.05,every=2%; `debiasbench list "
        "sparsifiers` names the algorithms.",
    ),
    click.option(
        "--batch-size",
        metavar="N|auto",
        help="Short for --set train.batch_size=N; auto keeps the batch and computes it in parts "
        "that fit into memory.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "tf32", "bf16", "fp16"]),
        help="Short for --set train.precision=...; auto is bf16 on a GPU that has it, else fp32.",
    ),
]


def spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what is run."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def training_settings(
    *, batch_size: str | None, precision: str | None, epochs: int | None = None
) -> list[str]:
    """Spell out the options that are short for settings of the training."""
    auto = batch_size == "auto"
    given = {
        "epochs": epochs,
        "micro_batch": "auto" if auto else None,
        "batch_size": None if auto else batch_size,
        "precision": precision,
    }
    return [f"train.{name}={value}" for name, value in given.items() if value is not None]


def spec_of(
    plugins: Plugins,
    method: str,
    dataset: str,
    implied: dict[str, object],
    model: str | None,
    seed: int,
    settings: tuple[str, ...],
    sparse: str | None,
    precision: Precision = "fp32",
) -> Spec:
    """Return the spec that names and settings define.

    `implied`: options that the name of the data set implies. `precision`: see `make_spec`.
    """
    from debiasbench.specs.resolve import make_spec
    from debiasbench.specs.words import arguments, combined, read_settings, read_sparse

    names = {"method": method, "dataset": dataset, "seed": seed}
    if model is not None:
        names["model"] = model
    words = combined([names, read_sparse(sparse), read_settings(settings)])
    made = arguments(words, plugins, lambda name: (name, implied))
    return make_spec(plugins, **made, precision=precision)
