"""Write the reference pages from `--help` texts, docstrings and declared options.

    python docs/generate.py            # write docs/reference/*.md
    python docs/generate.py --check    # fail if a page differs from what this script writes

The pages are equal on every supported Python and torch: annotations stand as they are written, and
no default is shown by an address.
"""

from __future__ import annotations
import __future__

import ast
import dataclasses
import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGES = Path(__file__).parent / "reference"
PACKAGE = "debiasbench"
WIDTH = 80  # columns of a help text
MODULES = {
    "debiasbench": "What a plugin or a script imports first. Importing it does not import torch.",
    "debiasbench.testing": "Checks for plugin authors. Each raises `AssertionError` with the "
    "promise that is broken.",
    "debiasbench.sparsity": "Sparse training for any PyTorch loop.",
}
NOTE = "<!-- Written by docs/generate.py: change the code and run it again. -->\n\n"


# --- commands ---------------------------------------------------------------------------------


def commands() -> str:
    """Write the help text of every command and sub-command."""
    from debiasbench.cli import main

    parts = ["# Commands\n\nThe `--help` text of every command.\n"]
    for path, context in _contexts(main, None, PACKAGE):
        level = "##" if path.count(" ") < 2 else "###"
        # click before 8.5 put the choices of a repeated argument into two pairs of brackets
        text = re.sub(r"\[(\[[^\[\]]*\])\](?=\.\.\.)", r"\1", context.get_help().rstrip())
        parts.append(f"{level} {path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _contexts(
    command: click.Command, parent: click.Context | None, name: str
) -> Iterator[tuple[str, click.Context]]:
    context = command.make_context(
        name, [], parent, resilient_parsing=True, terminal_width=WIDTH, color=False
    )
    yield context.command_path, context
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            child = command.get_command(context, below)
            if child is not None and not child.hidden:
                yield from _contexts(child, context, below)


# --- builtin components and their options -----------------------------------------------------


def components() -> str:
    """Write what `debiasbench show` prints of every builtin data set, model and method."""
    from debiasbench.core.settings import Training
    from debiasbench.specs.plugins import Plugins

    parts = [
        "# Data sets, models, methods, sparsifiers\n\n"
        "What comes with debiasbench, with all options. `debiasbench show NAME` prints the same, "
        "and shows installed plugins too.\n",
        f"## training\n\n{_prose(_doc(Training))}\n\n{_options(Training)}\n",
    ]
    for kind, registry in Plugins().kinds().items():
        if kind == "trackers":
            continue  # none is builtin
        parts.append(f"## {kind}\n")
        for name, entry in registry.items():
            if entry.origin.distribution != PACKAGE:
                continue
            cls = entry.load()
            shown = name + "NAME" if name.endswith(":") else name
            facts = "".join(f"\n- {key}: {value}" for key, value in _facts(cls).items())
            body = [f"### {shown}", _prose(_doc(cls)), facts.lstrip("\n"), _options(cls)]
            parts.append("\n\n".join(part for part in body if part) + "\n")
    return "\n".join(parts)


def _facts(cls: type[Any]) -> dict[str, str]:
    from debiasbench.core.data import Dataset
    from debiasbench.core.method import Method
    from debiasbench.specs.words import label

    facts = {}
    if issubclass(cls, Method):
        seen = cls().supervision
        facts["Sees"] = f"`train={seen.train}`, `val={seen.val}`"
        for name, settings in cls.presets.items():
            facts[f"`--preset {name}`"] = f"`{label(settings)}`"
    if issubclass(cls, Dataset):
        settings = ", ".join(f"`{name}={value}`" for name, value in cls.training.items())
        facts |= {"Source": _prose(cls.source), "Licence": _prose(cls.licence)}
        facts |= {"Model": f"`{cls.model}`", "Training": settings or "the defaults"}
    facts["Cite"] = _prose(getattr(cls, "citation", ""))
    return {key: value for key, value in facts.items() if value}


def _options(cls: type) -> str:
    from debiasbench.common.options import describe

    options = describe(cls)
    if not options:
        return "No options."
    rows = ["| option | type | default | range | meaning |", "|:--|:--|:--|:--|:--|"]
    for o in options:
        default = "none" if o.default is None else str(o.default)
        # a pipe would end the table's cell
        kinds = re.sub(r"Literal\['(\w+)'\]", r"\1", o.kind).split(" | ")
        cells = [f"`{o.name}`", " or ".join(f"`{kind}`" for kind in kinds), f"`{default}`"]
        cells += [_prose(o.range), _prose(o.meaning).replace("|", "&#124;")]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


# --- the Python interface ---------------------------------------------------------------------


def api() -> str:
    """Write name, signature and docstring of everything public."""
    parts = ["# Python interface\n"]
    for name, summary in MODULES.items():
        module = importlib.import_module(name)
        parts.append(f"## {name}\n\n{summary}\n")
        parts += [
            _entry(public, getattr(module, public))
            for public in sorted(_public(module), key=lambda n: (n.lower(), n))
        ]
    return "\n".join(parts)


def _public(module: ModuleType) -> list[str]:
    """Return `__all__`, or what a package exports and a module defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    is_package = hasattr(module, "__path__")

    def belongs(value: object) -> bool:
        if isinstance(value, ModuleType | __future__._Feature):
            return False
        if inspect.isclass(value) or inspect.isfunction(value):
            return _is_ours(value) if is_package else value.__module__ == module.__name__
        return is_package

    return [n for n, value in vars(module).items() if not n.startswith("_") and belongs(value)]


def _entry(name: str, value: object) -> str:
    if inspect.isclass(value):
        return _class(name, value)
    if inspect.isfunction(value):
        return _section(f"### {name}", f"{name}{_signature(value)}", _doc(value))
    source, doc = _assignment(name, value)
    return _section(f"### {name}", source, doc)


def _class(name: str, cls: type) -> str:
    init = next((vars(c)["__init__"] for c in cls.__mro__ if "__init__" in vars(c)), None)
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    head = f"class {name}({bases})" if bases else f"class {name}"
    if "__dataclass_params__" in vars(cls) and cls.__dataclass_params__.frozen:
        head = f"@dataclass(frozen=True)\n{head}"
    own = getattr(init, "__module__", "").startswith(PACKAGE)
    signature = _signature(init, method=True, returns=False) if own else "()"
    if signature != "()":
        head += f"\n\n{name}{signature}"
    parts = [_section(f"### {name}", head + _class_attributes(cls), _doc(cls))]
    inherited = {n for base in cls.__mro__[1:] if _is_ours(base) for n in vars(base)}
    for member, value in vars(cls).items():
        if member in inherited or (member.startswith("_") and member != "__call__"):
            continue
        title = f"#### {name}.{member}"
        if isinstance(value, property):
            returns = _annotation(inspect.signature(value.fget).return_annotation)
            parts.append(_section(title, f"{member}: {returns}", _doc(value)))
        elif inspect.isfunction(value) or isinstance(value, classmethod | staticmethod):
            bound = not isinstance(value, staticmethod)
            function = getattr(value, "__func__", value)
            text = f"{member}{_signature(function, method=bound)}"
            parts.append(_section(title, text, _doc(value)))
    return "\n".join(parts)


def _is_ours(value: Any) -> bool:
    return value.__module__.split(".")[0] == PACKAGE


def _class_attributes(cls: type) -> str:
    lines = [
        f"{name}: {annotation} = {_value(vars(cls)[name])}"
        for name, annotation in inspect.get_annotations(cls).items()
        if str(annotation).startswith("ClassVar") and name in vars(cls)
    ]
    return "\n\n" + "\n".join(lines) if lines else ""


def _section(title: str, code: str, doc: str) -> str:
    title = title.replace("__", r"\_\_")
    return f"{title}\n\n```python\n{code}\n```\n\n{_prose(doc)}".rstrip() + "\n"


def _signature(function: Callable[..., Any], *, method: bool = False, returns: bool = True) -> str:
    """Write a signature with annotations as they stand in the source, on lines that are short."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1 if method else 0 :]
    words: list[str] = []
    kinds = inspect.Parameter
    star = False
    for i, parameter in enumerate(parameters):
        if parameter.kind is kinds.KEYWORD_ONLY and not star:
            words.append("*")
            star = True
        star = star or parameter.kind is kinds.VAR_POSITIONAL
        words.append(_parameter(parameter))
        after = parameters[i + 1].kind if i + 1 < len(parameters) else None
        if parameter.kind is kinds.POSITIONAL_ONLY and after is not kinds.POSITIONAL_ONLY:
            words.append("/")
    end = ""
    if returns and signature.return_annotation is not inspect.Signature.empty:
        end = f" -> {_annotation(signature.return_annotation)}"
    line = f"({', '.join(words)}){end}"
    if len(line) <= WIDTH - len(getattr(function, "__name__", "")):
        return line
    return "(\n" + "".join(f"    {word},\n" for word in words) + f"){end}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
    text = stars.get(parameter.kind, "") + parameter.name
    annotated = parameter.annotation is not inspect.Parameter.empty
    if annotated:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not inspect.Parameter.empty:
        text += f"{' = ' if annotated else '='}{_value(parameter.default)}"
    return text


def _annotation(annotation: object) -> str:
    if isinstance(annotation, str):
        return annotation.replace("'", '"')
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation)


def _value(value: object) -> str:
    """Write a default; raises `ValueError` for one that has no text of its own."""
    if value is dataclasses.MISSING:  # an argument that was not given; its repr is an address
        text = "MISSING"
    elif inspect.isclass(value) or inspect.isroutine(value):
        text = value.__name__
    elif isinstance(value, Path):
        text = f'Path("{value.as_posix()}")'
    elif isinstance(value, set | frozenset):
        text = "{" + ", ".join(sorted(map(repr, value))) + "}"
    elif isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = repr(value).replace("<factory>", "...")  # of a field, such as an empty dict
    if re.search(r" at 0x[0-9a-f]+", text):
        raise ValueError(f"{text} differs in every process: give it a repr")
    return text


def _assignment(name: str, value: object) -> tuple[str, str]:
    """Return the source of `name = ...` where it was assigned, and the docstring below it."""
    for module in [m for n, m in sorted(sys.modules.items()) if n.split(".")[0] == PACKAGE]:
        if vars(module).get(name) is not value:
            continue
        text = inspect.getsource(module)
        body = ast.parse(text).body
        for node, after in zip(body, [*body[1:], None], strict=True):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", 0)]
            if not any(isinstance(t, ast.Name) and t.id == name for t in targets):
                continue
            doc = getattr(getattr(after, "value", None), "value", "")
            source = ast.get_source_segment(text, node) or ""
            return source, inspect.cleandoc(doc) if isinstance(doc, str) else ""
    raise ValueError(f"{name} is assigned in no module of {PACKAGE}")


def _doc(value: object) -> str:
    return inspect.getdoc(value) or ""


def _prose(doc: str) -> str:
    """Keep a docstring's code as code, and its stars and brackets from becoming Markdown."""
    paragraphs = re.split(r"\n{2,}", doc)
    return "\n\n".join(p if p.startswith("    ") else _escaped(p) for p in paragraphs)


def _escaped(paragraph: str) -> str:
    pieces = paragraph.split("`")
    return "`".join(
        piece if i % 2 else re.sub(r"([*\[\]])", r"\\\1", piece).replace("<", "&lt;")
        for i, piece in enumerate(pieces)
    )


# --- pages ------------------------------------------------------------------------------------


PAGE_WRITERS = {"cli.md": commands, "components.md": components, "api.md": api}


def text_of(page: str) -> str:
    """Return what a page must hold."""
    return NOTE + PAGE_WRITERS[page]()


def main() -> None:
    """Write the pages, or check them."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    PAGES.mkdir(exist_ok=True)
    for page in PAGE_WRITERS:
        path, text = PAGES / page, text_of(page)
        if not check:
            path.write_text(text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            sys.exit(f"{path} is out of date: run `python docs/generate.py`")


if __name__ == "__main__":
    main()
