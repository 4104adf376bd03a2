"""Which file of a package imports which others, read from the source, for tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def files(package: Path) -> dict[str, Path]:
    """Return the files of a package by module name, such as `debiasbench.cli.run`."""
    return {module_name(path, package): path for path in sorted(package.rglob("*.py"))}


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph(package: Path) -> dict[str, set[str]]:
    """Return the modules that each module imports.

    Imports inside functions and under `if TYPE_CHECKING` count too. `from package import name` is
    an import of the module `package.name` if there is one, and of `package` otherwise.
    """
    modules = files(package)
    return {
        name: _imports(path, name, package.name, modules) - {name} for name, path in modules.items()
    }


def _imports(path: Path, name: str, top: str, modules: dict[str, Path]) -> set[str]:
    parent = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imported: set[str] = set()
    for node in _statements(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = _absolute(node, parent)
            wholes = [f"{base}.{alias.name}" for alias in node.names]
            imported |= {whole if whole in modules else base for whole in wholes}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    return {module for module in imported if module.partition(".")[0] == top}


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Go through all statements; `ast.walk` goes through expressions too, in 5 times the time."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, block, ())


def _absolute(node: ast.ImportFrom, parent: str) -> str:
    """Return the module that is imported from: with a leading dot it is relative to `parent`."""
    if node.level == 0:
        return node.module or ""
    parts = parent.split(".")
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])
