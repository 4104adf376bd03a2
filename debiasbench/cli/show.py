"""`debiasbench show`: the description and the options of one name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from debiasbench.cli.common import data_root_option, debug_option, load_plugins, say
from debiasbench.cli.parsing import Command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from debiasbench.core.data import Dataset, Task
    from debiasbench.specs.registry import Entry


@click.command(cls=Command)
@click.argument("name")
@data_root_option
@debug_option
def show(name: str, data_root: Path) -> None:
    """Describe a name, and list its options.

    NAME is a data set, model, method, sparsifier or tracker; a data set may be an imported one.
    `debiasbench show training` lists the training settings that all methods share.
    """
    from debiasbench.common.errors import DataError, OptionError, UnknownNameError
    from debiasbench.common.names import IMPORTED
    from debiasbench.core.settings import Training
    from debiasbench.files.importing import missing, names, where

    if name == "training":
        say(f"{inspect.getdoc(Training)}\n\n{_options(Training)}")
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
    short = name.removeprefix(IMPORTED)
    folder = where(data_root, short)
    if folder is not None and (short != name or name not in plugins.datasets):
        entries = [entry for entry in entries if entry.name != IMPORTED]
        parts = [_imported(short, folder)]
    elif name.startswith(IMPORTED) and short not in {"", "NAME"}:
        raise DataError(missing(data_root, short))
    else:
        parts = []
    if not entries and not parts:
        raise (
            refused[0]
            if refused
            else UnknownNameError("name", name, dict.fromkeys([*known, *names(data_root)]))
        )
    say("\n\n".join([*parts, *map(_entry, entries)]))


def _imported(name: str, folder: Path) -> str:
    from debiasbench.datasets.imported import Imported
    from debiasbench.files import task_folder
    from debiasbench.files.sheet import described, group_table, is_drawable

    known = task_folder.facts(folder)
    task = task_folder.load(folder, verify=False)
    source = known["more"].get("source", {})
    columns = {
        "Class column": source.get("label"),
        "Bias column": " + ".join(source.get("bias") or ()),
        "Split column": source.get("split"),
    }
    facts = {
        "Folder": folder,
        "Checksum": known["digest"],
        "Images": source.get("images"),
        "Table": source.get("table"),
        **columns,
        "Text columns": " + ".join(source.get("text") or ()),
        "Features": _features(known["more"].get("features") or ()),
        "Bad rows skipped": known["more"].get("left_out"),
        "Recommended model": _recommended(task),
    }
    listed = "\n".join(f"{label}: {value}" for label, value in facts.items() if value)
    is_image = is_drawable(task.train)
    samples = (
        f"{'x'.join(map(str, task.shape.input))} uint8 images" if is_image else described(task)
    )
    head = f"dataset {name}  (imported)\n\n{inspect.getdoc(Imported)}\n{samples}."
    return f"{head}\n\n{listed}\n\n{group_table(task)}"


def _features(columns: Sequence[Mapping[str, Any]]) -> str:
    """Describe how the columns of a table are encoded, such as "age, job (12 values)"."""
    return ", ".join(
        f"{c['column']} ({len(c['values'])} values)" if "values" in c else str(c["column"])
        for c in columns
    )


def _recommended(task: Task) -> str:
    from debiasbench.core.texts import Texts
    from debiasbench.datasets.imported import Imported

    if isinstance(task.train.x, Texts):
        return "hf:bert-base-uncased"
    return Imported.model if len(task.shape.input) == 3 else "mlp"


def _entry(entry: Entry[object]) -> str:
    from debiasbench.common.options import spaces
    from debiasbench.core.data import Dataset
    from debiasbench.core.method import Method
    from debiasbench.core.tracker import Tracker
    from debiasbench.specs.words import label

    cls = entry.load()
    parts = [f"{entry.kind} {entry.name}  ({entry.origin})", inspect.getdoc(cls) or ""]
    facts = []
    if issubclass(cls, Method):
        supervision = cls().supervision
        facts.append(f"Supervision: train={supervision.train}, val={supervision.val}")
        facts += [f"--preset {name}: {label(words)}" for name, words in cls.presets.items()]
        own = list(spaces(cls))
        facts.append(
            f"Search: {', '.join(own) if own else 'no option of its own'}, and the training "
            "settings that `debiasbench show DATASET` names"
        )
    if issubclass(cls, Dataset):
        settings = ", ".join(f"{k}={v}" for k, v in cls.training.items())
        facts += [
            f"Source: {cls.source}",
            f"Licence: {cls.licence}",
            f"Recommended model: {cls.model}",
            f"Recommended training: {settings or 'the defaults'}",
            f"Search of training: {_searched(cls)}",
        ]
    citation = getattr(cls, "citation", "")
    facts += [f"Cite: {citation}"] if citation else []
    if facts:
        parts.append("\n".join(facts))
    if not issubclass(cls, Tracker):  # it has no options
        parts.append(_options(cls))
    return "\n\n".join(parts)


def _searched(cls: type[Dataset]) -> str:
    """Write what searches on a data set try for the training."""
    from debiasbench.common.options import parse
    from debiasbench.core.settings import Training, searched

    settings = parse(Training, dict(cls.training), owner="training")
    return ", ".join(f"{name}={space}" for name, space in searched(settings, cls.search).items())


def _options(cls: type) -> str:
    from tabulate import tabulate

    from debiasbench.common.options import describe

    options = describe(cls)
    if not options:
        return "No options."
    columns: dict[str, list[object]] = {
        "option": [o.name for o in options],
        "type": [o.kind for o in options],
        "default": ["none" if o.default is None else o.default for o in options],
        "range": [o.range for o in options],
        "search": ["" if o.search is None else str(o.search) for o in options],
        "meaning": [o.meaning for o in options],
    }
    if not any(o.search for o in options):
        del columns["search"]
    widths = {"type": 24, "search": 24, "meaning": 56}
    return tabulate(
        list(zip(*columns.values(), strict=True)),
        headers=list(columns),
        tablefmt="plain",
        disable_numparse=True,
        maxcolwidths=[widths.get(name) for name in columns],
    )
