"""`debiasbench show`: everything about one name."""

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
    """Show what a data set, model, method or sparse training algorithm is, and its options.

    `show training` lists the settings that all methods share.
    """
    from debiasbench.common.errors import UnknownNameError
    from debiasbench.core.settings import Training

    if name == "training":
        click.echo(f"{inspect.getdoc(Training)}\n\n{_options(Training)}")
        return
    plugins = load_plugins()
    found, known = [], ["training"]
    for registry in plugins.kinds().values():
        known += list(registry)
        try:
            found.append(registry.find(name)[0])
        except UnknownNameError:
            continue
    if not found:
        raise UnknownNameError("name", name, dict.fromkeys(known))
    click.echo("\n\n".join(_entry(entry) for entry in found))


def _entry(entry: Entry[object]) -> str:
    from debiasbench.core.data import Dataset
    from debiasbench.core.method import Method

    cls = entry.load()
    parts = [f"{entry.kind} {entry.name}  ({entry.origin})", inspect.getdoc(cls) or ""]
    facts = []
    if issubclass(cls, Method):
        seen = cls().supervision
        facts.append(f"Sees: train={seen.train}, val={seen.val}")
    if issubclass(cls, Dataset):
        facts += [f"Source: {cls.source}", f"Licence: {cls.licence}", f"Model: {cls.model}"]
        settings = ", ".join(f"{k}={v}" for k, v in cls.training.items())
        facts.append(f"Training: {settings or 'the defaults'}")
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
