"""`debiasbench data`: list, prepare, check, show, import and remove data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from debiasbench.cli.common import data_root_option, debug_option, load_plugins, say
from debiasbench.cli.data_import import import_
from debiasbench.cli.data_remove import remove
from debiasbench.cli.parsing import Group
from debiasbench.common.errors import DataError, PluginError
from debiasbench.common.wording import shortened
from debiasbench.specs.resolve import find_dataset

if TYPE_CHECKING:
    from collections.abc import Callable

    from debiasbench.core.data import Dataset, Split, Task
    from debiasbench.specs.plugins import Plugins


class _Data(Group):
    """Commands whose data root may be any place: one that cannot be used is an error of data."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; raises `DataError` for a file or folder that cannot be used."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click handles it
        except OSError as error:
            where = shortened(str(error.filename or "A file"))
            raise DataError(
                f"{where}: {error.strerror or error}. Check the name and the permissions, or "
                "choose another folder with --data-root"
            ) from error


@click.group(cls=_Data)
def data() -> None:
    """List, prepare, check, show, import and remove data sets."""


data.add_command(import_)
data.add_command(remove)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--set` and `--data-root`."""
    setting = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="OPTION=VALUE",
        help="Set an option of the data set. Can be used several times. `debiasbench show NAME` "
        "lists the options.",
    )
    return setting(data_root_option(command))


@data.command("list")
@data_root_option
@debug_option
def list_(data_root: Path) -> None:
    """List data sets with state, size, licence and source."""
    from tabulate import tabulate

    from debiasbench.files import task_cache

    plugins = load_plugins()
    cached = task_cache.all_in(data_root)
    rows = []
    for name, entry in plugins.datasets.items():
        if name.endswith(":"):
            continue
        try:
            cls = entry.load()
        except PluginError as error:
            say(f"Warning: {error}", err=True)
            continue
        decoded = sum(c.bytes for c in cached if c.name == name)
        state = _state(cls(**cls.implied(data_root)), data_root)
        rows.append((name, *state, _size(decoded), cls.licence, cls.source))
    rows += _imported(data_root)
    header = ("data set", "files", "size", "decoded", "licence", "source")
    say(tabulate(rows, header, "simple", disable_numparse=True, maxcolwidths=[None] * 4 + [28, 52]))
    say(f"\nData root: {data_root}")


@data.command()
@click.argument("name")
@_options
@debug_option
def prepare(name: str, settings: tuple[str, ...], data_root: Path) -> None:
    """Download the missing files of a data set, and decode them once.

    Existing files are used. For data that must be downloaded manually, the command says where to
    put the files.
    """
    from debiasbench.common.display import display
    from debiasbench.files import task_cache
    from debiasbench.files.download import fetch
    from debiasbench.files.sheet import described, group_table

    plugins = load_plugins()
    in_spec, dataset = _dataset(plugins, name, settings, data_root)
    missing = [source for source in dataset.sources(data_root) if not source.exists()]
    given = [data_root / file for download in dataset.downloads for file in download.gives]
    # with some options, a data set reads files that must be downloaded manually
    if any(path.is_relative_to(source) for path in given for source in missing):
        with display("bytes") as progress:
            fetch(dataset.downloads, data_root, progress=progress)
        # the new files may imply other options
        in_spec, dataset = _dataset(plugins, name, settings, data_root)
    task = task_cache.load(in_spec, dataset, data_root)
    say(f"{name} is ready: {described(task)}\n")
    say(group_table(task))
    if implied := type(dataset).implied(data_root):
        options = " ".join(f"{option}={value}" for option, value in implied.items())
        say(f"\nOptions that the files imply, unless they are set: {options}")


@data.command()
@click.argument("names", nargs=-1)
@data_root_option
@debug_option
def check(names: tuple[str, ...], data_root: Path) -> None:
    """Verify the checksums of decoded and imported data sets.

    Without NAMES, all data sets are checked. A damaged decoded data set is removed, because it can
    be decoded again. A damaged import is kept; import it again.
    """
    import shutil

    from debiasbench.files import task_cache, task_folder
    from debiasbench.files.importing import names as imported
    from debiasbench.files.importing import where

    places = [(c.name, c.folder, True) for c in task_cache.all_in(data_root)]
    places += [
        (name, folder, False)
        for name in imported(data_root)
        if (folder := where(data_root, name)) is not None
    ]
    selected = [place for place in places if not names or place[0] in names]
    if missing := set(names) - {name for name, *_ in selected}:
        raise DataError(
            f"No decoded or imported data under {data_root}: {', '.join(sorted(missing))}. "
            "`debiasbench data list` lists all data sets"
        )
    damaged = 0
    for name, folder, is_cached in selected:
        try:
            task_folder.load(folder)
        except DataError as error:
            damaged += 1
            say(f"damaged  {name}: {error}")
            if is_cached:
                shutil.rmtree(folder, ignore_errors=True)
                say("         removed; it will be decoded again when it is needed")
        else:
            say(f"intact   {name}: {folder}")
    if not selected:
        say(f"No data set is decoded or imported under {data_root}")
    if damaged:
        click.get_current_context().exit(DataError.exit_code)


@data.command()
@click.argument("name")
@_options
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="train",
    show_default=True,
    help="Split to draw.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the picture, or of an HTML page for texts.  [default: NAME-SPLIT.png, and no "
    "page]",
)
@debug_option
def show(
    name: str, settings: tuple[str, ...], data_root: Path, split: str, out: Path | None
) -> None:
    """Print the groups of a data set and draw a contact sheet.

    The sheet shows aligned and conflicting samples of each class. Of texts, two of each group are
    printed instead; with --out FILE.html, more are written to a page. Other samples have no sheet.
    """
    from io import BytesIO

    from debiasbench.common.options import as_dict
    from debiasbench.core.texts import Texts
    from debiasbench.files import task_cache
    from debiasbench.files.sheet import contact_sheet, described, group_table, is_drawable
    from debiasbench.records.store import write_bytes

    plugins = load_plugins()
    in_spec, dataset = _dataset(plugins, name, settings, data_root)
    task = task_cache.load(in_spec, dataset, data_root)
    say(group_table(task))
    samples = dict(task.splits())[split]  # type: ignore[index]
    options = " ".join(f"{k}={v}" for k, v in as_dict(dataset).items())
    title = f"{name} {options}, {split}"
    if isinstance(samples.x, Texts):
        _show_texts(task, samples, title, out)
        return
    if out is None and not is_drawable(samples):
        say(f"\nNo contact sheet: {described(task)} are not images")
        return
    sheet = contact_sheet(task, samples, title)
    out = out or Path(f"{name.replace(':', '-')}-{split}.png")
    png = BytesIO()
    sheet.save(png, "PNG")
    write_bytes(out, png.getvalue())
    say(f"\nContact sheet: {out}")


def _show_texts(task: Task, samples: Split, title: str, out: Path | None) -> None:
    """Print a few texts of each group, or write more of them to an HTML page."""
    from debiasbench.files.text_sheet import text_page, text_table
    from debiasbench.records.store import write_text

    if out is None:
        say(f"\n{text_table(task, samples)}")
        return
    if out.suffix.lower() not in {".html", ".htm"}:
        raise click.UsageError(f"--out {out}: texts are written to an HTML page: use FILE.html")
    write_text(out, text_page(task, samples, title))
    say(f"\nExamples of each group: {out}")


def _dataset(
    plugins: Plugins, name: str, settings: tuple[str, ...], data_root: Path
) -> tuple[str, Dataset]:
    """Return a data set that a person named, and its name in a spec."""
    from debiasbench.common.options import parse
    from debiasbench.specs.words import read_options

    name, implied = find_dataset(plugins, name, data_root)
    entry, fixed = plugins.datasets.find(name)
    options = {**implied, **read_options(settings, "dataset"), **fixed}
    dataset = parse(entry.load(), options, owner=f"dataset {name}")
    return plugins.datasets.name_in_spec(name), dataset


def _state(dataset: Dataset, root: Path) -> tuple[str, str]:
    from debiasbench.files.task_cache import weight

    try:
        sources = dataset.sources(root)
        if not sources:
            return "included", ""
        if all(source.exists() for source in sources):
            return "present", _size(sum(weight(source) for source in sources))
    except OSError as error:
        return f"unreadable: {error.strerror or error}", ""
    return "not downloaded" if dataset.downloads else "manual download", ""


def _imported(root: Path) -> list[tuple[str, str, str, str, str, str]]:
    from debiasbench.files.importing import names, where
    from debiasbench.files.task_cache import weight

    return [
        (name, "imported", "", _size(weight(folder)), "", "your own")
        for name in names(root)
        if (folder := where(root, name)) is not None
    ]


def _size(count: int) -> str:
    return f"{count / 1e6:,.0f} MB" if count else ""
