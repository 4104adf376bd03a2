"""`debiasbench show`: the description and the options of one name."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import debug_option, load_plugins

if TYPE_CHECKING:
    from debiasbench.specs.registry import Entry


@click.command()
@click.argument("name")
@debug_option
def show(name: str) -> None:
    """Describe a name, and list its options.

    NAME is a data set, model, method or sparsifier. `debiasbench show training` lists the training
    settings that all methods share.
    """
    from debiasbench.common.errors import OptionError, UnknownNameError
    from debiasbench.core.settings import Training

    if name == "training":
        click.echo(f"{inspect.getdoc(Training)}\n\n{_options(Training)}")
        return
    plugins = load_plugins()
    entries, known = [], ["training"]
    refused: list[OptionError] = []  # a class of a file is of one kind
    for registry in plugins.kinds().values():
        known += registry.display_names()
        try:
            entries.append(registry.find(name)[0])
        except UnknownNameError:
            continue
        except OptionError as error:
            refused.append(error)
    if not entries:
        raise refused[0] if refused else UnknownNameError("name", name, dict.fromkeys(known))
    click.echo("\n\n".join(_entry(entry) for entry in entries))


def _entry(entry: Entry[object]) -> str:
    from debiasbench.core.data import Dataset
    from debiasbench.core.method import Method

    cls = entry.load()
    parts = [f"{entry.kind} {entry.name}  ({entry.origin})", inspect.getdoc(cls) or ""]
    facts = []
    if issubclass(cls, Method):
        supervision = cls().supervision
        facts.append(f"Supervision: train={supervision.train}, val={supervision.val}")
    if issubclass(cls, Dataset):
        settings = ", ".join(f"{k}={v}" for k, v in cls.training.items())
        facts += [
            f"Source: {cls.source}",
            f"Licence: {cls.licence}",
            f"Recommended model: {cls.model}",
            f"Recommended training: {settings or 'the defaults'}",
        ]
    citation = getattr(cls, "citation", "")
    facts += [f"Cite: {citation}"] if citation else []
    if facts:
        parts.append("\n".join(facts))
    parts.append(_options(cls))
    return "\n\n".join(parts)


def _options(cls: type) -> str:
    from tabulate import tabulate

    from debiasbench.common.options import describe

    rows = [
        (o.name, o.kind, "none" if o.default is None else o.default, o.range, o.meaning)
        for o in describe(cls)
    ]
    if not rows:
        return "No options."
    return tabulate(
        rows,
        headers=("option", "type", "default", "range", "meaning"),
        tablefmt="plain",
        disable_numparse=True,
        maxcolwidths=[None, 24, None, None, 56],
    )
