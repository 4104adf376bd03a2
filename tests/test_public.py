"""The names that `debiasbench` offers: all that plugins need, each from its module, when used."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import debiasbench

PACKAGE = Path(debiasbench.__file__).parent

# what a lab, a view and an encoder are made of: plugins are given these and do not name them
INTERNAL = {
    "Backend",
    "FeaturesOf",
    "Inferred",
    "Moment",
    "NoHead",
    "OptimizerState",
    "OwnBatches",
    "Samples",
    "Stream",
}


def classes_of_core() -> set[str]:
    trees = [ast.parse(path.read_text("utf-8")) for path in (PACKAGE / "core").glob("*.py")]
    names = {node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
    return {name for name in names if not name.startswith("_")}


def test_every_class_of_core_is_importable_from_the_top() -> None:
    assert {"Method", "Dataset", "Model", "Lab", "Stage", "Trained"} <= classes_of_core()
    assert classes_of_core() - INTERNAL <= set(debiasbench.__all__)


@pytest.mark.parametrize(
    "name",
    ["hookimpl", "option", "equal_groups", "upweight_conflict", "published_weight", "compare"],
)
def test_functions_that_plugins_and_users_call_are_importable_from_the_top(name: str) -> None:
    assert name in debiasbench.__all__
    assert callable(getattr(debiasbench, name))


@pytest.mark.parametrize("name", debiasbench.__all__)
def test_a_name_is_that_of_its_module(name: str) -> None:
    value = getattr(debiasbench, name)
    module = importlib.import_module(debiasbench._MODULES[name])
    assert value is getattr(module, name)
    if inspect.isclass(value):
        assert value.__module__ == module.__name__  # not where it is merely imported
    assert name in dir(debiasbench)


def test_type_checkers_see_the_names_that_are_imported_lazily() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: f"{node.module}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == debiasbench._MODULES


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    missing = "Methode"
    with pytest.raises(AttributeError, match="module 'debiasbench' has no attribute 'Methode'"):
        getattr(debiasbench, missing)


HEAVY = {
    "PIL", "numpy", "pandas", "pydantic", "rich", "safetensors", "scipy", "sklearn", "timm",
    "torch", "torchvision",
}  # fmt: skip


def imported(code: str) -> set[str]:
    """Return the top-level modules that a new interpreter has imported after some code."""
    code += "\nimport sys\nprint(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


CALL = "from debiasbench.cli import main\ntry:\n    main({words!r})\nexcept SystemExit:\n    pass"


@pytest.mark.slow
def test_importing_debiasbench_imports_nothing_else_that_was_installed() -> None:
    assert imported("import debiasbench") & (HEAVY | {"click", "pluggy"}) == set()


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["compare", "--help"], ["list"]])
def test_help_and_list_import_nothing_heavy(words: list[str]) -> None:
    modules = imported(CALL.format(words=words))
    assert "debiasbench" in modules
    assert modules & HEAVY == set()


@pytest.mark.slow
def test_a_command_has_the_same_help_by_itself_and_below_the_group() -> None:
    code = (
        "import click; from debiasbench.cli import main;"
        "from debiasbench.cli.compare import compare;"
        "alone = compare.get_help(click.Context(compare, info_name='debiasbench compare'));"
        "below = compare.get_help("
        "    click.Context(compare, parent=click.Context(main, info_name='debiasbench'),"
        "                  info_name='compare'));"
        "assert alone == below and '-h, --help' in alone, alone"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
