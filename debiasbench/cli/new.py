"""`debiasbench new`: write the package of a new method, data set or model."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

import click

from debiasbench.cli.common import debug_option, load_plugins
from debiasbench.cli.parsing import Command
from debiasbench.common.errors import OptionError, StoreError

TEMPLATES = Path(__file__).parent / "templates"
NAME = re.compile(r"[a-z]([a-z0-9]|[_-](?=[a-z0-9]))*")
NOUNS = {"method": "method", "dataset": "data set", "model": "model"}
WORDS = {  # of `debiasbench run` that use the new name
    "method": "--method {}",
    "dataset": "--method erm --dataset {}",
    "model": "--method erm --model {}",
}


@click.command(cls=Command)
@click.argument("kind", type=click.Choice(list(NOUNS)))
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder in which the folder of the package is made.  [default: the current folder]",
)
@debug_option
def new(kind: str, name: str, folder: Path) -> None:
    """Write the package of a new method, data set or model.

    NAME is the name to register, such as margin. The package is written to the folder
    debiasbench-NAME. It has a working example to replace, a test, and an entry point, by which
    debiasbench finds it after `pip install`. Existing files are never changed.
    """
    values = _values(kind, name)
    _check_is_free(kind, name)
    package = folder / values["distribution"]
    files = _files(kind, values)
    try:
        package.mkdir(parents=True)
        for place, text in files.items():
            path = package / place
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
    except FileExistsError as error:
        raise OptionError(
            f"{error.filename} exists already: remove it, or choose another name or --folder"
        ) from error
    except OSError as error:
        raise StoreError(f"Cannot write {package}: {error.strerror or error}") from error
    click.echo(f"Wrote {package}:\n")
    click.echo("".join(f"  {place}\n" for place in files))
    click.echo(
        f"Next: write your {NOUNS[kind]} in {values['package']}/{kind}.py.\n\n"
        f"  pip install -e {package}\n"
        f"  debiasbench run {values['words']} --epochs 2\n"
        f"  pytest {package}"
    )


def _values(kind: str, name: str) -> dict[str, str]:
    """Return what the templates are filled with; raises `OptionError` for an invalid name."""
    if not NAME.fullmatch(name):
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = f". Did you mean {plain!r}?" if NAME.fullmatch(plain) else ""
        raise OptionError(
            f"{name!r} is not a valid name: write lower-case letters and digits, with single '-' "
            f"or '_' between them, and begin with a letter{hint}"
        )
    module = name.replace("-", "_")
    words = module.split("_")
    title = " ".join(words).capitalize()
    class_name = "".join(word.capitalize() for word in words)
    if keyword.iskeyword(class_name) or class_name in _used_names(kind):
        class_name += kind.capitalize()
    return {
        "kind": kind,
        "noun": NOUNS[kind],
        "name": name,
        "module": module,
        "package": f"debiasbench_{module}",
        "distribution": f"debiasbench-{module.replace('_', '-')}",
        "class_name": class_name,
        "title": title,
        "words": WORDS[kind].format(name),
    }


def _used_names(kind: str) -> set[str]:
    """Return all words of the module's template, so that the class does not hide one of them."""
    return set(re.findall(r"\w+", (TEMPLATES / kind / f"{kind}.py.txt").read_text("utf-8")))


def _check_is_free(kind: str, name: str) -> None:
    registry = load_plugins().kinds()[f"{kind}s"]
    if name in registry:
        raise OptionError(
            f"{NOUNS[kind]} {name!r} exists already, in {registry[name].origin}: choose another "
            "name"
        )


def _files(kind: str, values: dict[str, str]) -> dict[str, str]:
    """Return the files of the package: place -> text."""
    package = values["package"]
    templates = {
        "pyproject.toml": TEMPLATES / "pyproject.toml.txt",
        "README.md": TEMPLATES / "README.md.txt",
        f"{package}/__init__.py": TEMPLATES / "init.py.txt",
        f"{package}/{kind}.py": TEMPLATES / kind / f"{kind}.py.txt",
        f"tests/test_{values['module']}.py": TEMPLATES / "test.py.txt",
    }
    return {
        place: Template(template.read_text("utf-8")).substitute(values)
        for place, template in templates.items()
    }
