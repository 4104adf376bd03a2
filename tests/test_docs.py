"""The documents, checked against the code."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import torch

from debiasbench.core import hooks
from debiasbench.records.metrics import METRICS
from debiasbench.records.selection import RULES
from debiasbench.specs import suites
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.registry import Origin
from debiasbench.testing import check_method

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]}
COMMAND = re.compile(r"^\$ debiasbench (\w+)([^#\n]*)", re.MULTILINE)


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def generator() -> ModuleType:
    """Import docs/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- code in the pages ------------------------------------------------------------------------


def test_the_method_of_the_page_on_plugins_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = blocks((ROOT / "plugins" / "README.md").read_text(), "python")
    (tmp_path / "method_of_the_page.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    check_method(importlib.import_module("method_of_the_page").Weighted())


def test_the_readmes_plugin_is_a_sound_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, code = blocks(README, "python")
    (tmp_path / "readme_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    plugin = importlib.import_module("readme_plugin")
    entry = Plugins([(plugin, Origin("readme", "0"))]).methods["balanced"]
    check_method(entry.load()())


def test_the_sparse_loop_runs_as_it_stands() -> None:
    (code,) = blocks(PAGES["sparsity.md"], "python")
    model = torch.nn.Linear(20, 3)
    rng = torch.Generator().manual_seed(0)
    batches = [(torch.rand(8, 20, generator=rng), torch.arange(8) % 3) for _ in range(40)]
    names: dict[str, Any] = {
        "torch": torch,
        "model": model,
        "batches": batches,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    exec(code, names)
    assert int((model.weight != 0).sum()) <= round(0.05 * 60)
    assert names["sparse"].updates > 0
    assert names["checkpoint"]["sparse"]["step"] == 40


@pytest.mark.parametrize("page", PAGES)
def test_names_that_python_blocks_import_exist(page: str) -> None:
    for code in blocks(PAGES[page], "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and _roots(node) == ["debiasbench"]:
                assert node.module is not None
                module = importlib.import_module(node.module)
                for name in (alias.name for alias in node.names):
                    assert hasattr(module, name), name


def test_the_suite_of_the_page_defines_the_runs_that_the_page_says(tmp_path: Path) -> None:
    text, *_ = blocks(PAGES["sweeps.md"], "toml")
    (tmp_path / "densities.toml").write_text(text)
    specs = suites.read(tmp_path / "densities.toml").specs(Plugins())
    assert [spec.method.name for spec in specs] == ["rest"] * 6 + ["erm"] * 2
    assert {spec.training["epochs"] for spec in specs} == {10}


def test_the_other_parts_of_suites_in_the_documentation_are_valid(tmp_path: Path) -> None:
    head = 'name = "n"\ndescription = "d"\nsource = "s"\n[base]\ndataset = "cmnist"\n'
    _, methods, tied, sizes = blocks(PAGES["sweeps.md"], "toml")
    upweight = 'method = "upweight"\n'
    found = []
    for text in (head + methods, head + upweight + tied, head + upweight + sizes):
        (tmp_path / "part.toml").write_text(text)
        found.append(suites.read(tmp_path / "part.toml"))
    assert [len(suite.specs(Plugins())) for suite in found] == [12, 6, 1]
    assert found[2].stand_ins["cmnist"].input == (3, 28, 28)


# --- what the pages must name -----------------------------------------------------------------


def test_every_hook_is_documented_by_its_signature() -> None:
    for name in vars(hooks):
        if name.startswith("debiasbench_"):
            assert f"`{name}(register)`" in PAGES["plugins.md"]


@pytest.mark.parametrize("name", [*METRICS, *RULES])
def test_the_page_on_leaderboards_names_every_metric_and_selection_rule(name: str) -> None:
    assert f"`{name}`" in PAGES["leaderboards.md"]


def test_the_pages_name_every_builtin_component() -> None:
    pages = {
        "datasets": "data.md",
        "models": "methods.md",
        "methods": "methods.md",
        "sparsifiers": "sparsity.md",
    }
    for kind, registry in Plugins().kinds().items():
        for name in registry:
            shown = f"`{name}NAME`" if name.endswith(":") else f"`{name}`"
            assert shown in PAGES[pages[kind]] or name == "imported:", name


def test_every_command_is_documented_and_every_documented_one_exists() -> None:
    from debiasbench.cli import main

    commands = {name for text in PAGES.values() for name, _ in COMMAND.findall(text)}
    assert commands == {name for name, each in main.commands.items() if not each.hidden}


@pytest.mark.parametrize("page", PAGES)
def test_options_that_a_page_uses_exist(page: str) -> None:
    from debiasbench.cli import main

    for name, line in COMMAND.findall(PAGES[page]):
        command = main.commands[name]
        words = line.partition(" -- ")[0]  # what follows goes to sbatch
        if isinstance(command, click.Group):
            command = command.commands[words.split()[0]]
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        assert set(re.findall(r"(?<!\S)(--[\w-]+)", words)) <= known, (name, words)


def test_ci_and_the_readme_say_the_same_two_lines() -> None:
    install = "pip install . && debiasbench run --method rest"
    test = 'pip install -e ".[test]" && pytest'
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert f"$ {install}\n" in README
    assert f"$ {test}\n" in README
    assert f"- run: {install}\n" in workflow
    assert f"- run: {test}\n" in workflow


# --- the pages as pages -----------------------------------------------------------------------


@pytest.mark.parametrize("page", ["cli.md", "components.md", "api.md"])
def test_the_reference_is_what_the_code_says(page: str) -> None:
    written, expected = (DOCS / "reference" / page).read_text(), generator().text_of(page)
    assert written == expected, f"{page} is out of date: run `python docs/generate.py`"


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len(README.splitlines()) < 120


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "plugins/README.md",
        "benchmarks/README.md",
        *(f"docs/{path.name}" for path in sorted(DOCS.glob("*.md"))),
    ],
)
def test_links_to_files_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_every_page_is_in_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text()
    for path in DOCS.rglob("*.md"):
        assert f": {path.relative_to(DOCS)}\n" in config


# --- dependencies -----------------------------------------------------------------------------


def test_the_packages_declared_are_those_the_code_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    used = [d for name, of in extras.items() if name not in {"test", "docs", "dev"} for d in of]
    declared = {re.split(r"[<>=\[ ]", d)[0] for d in [*project["dependencies"], *used]}
    by_fsspec = {"gcsfs", "s3fs"}  # fsspec imports them
    names = {"PIL": "pillow", "sklearn": "scikit-learn"}
    imported = {
        names.get(module, module)
        for path in (ROOT / "debiasbench").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for module in _roots(node)
        if module not in {*sys.stdlib_module_names, "debiasbench"}
    }
    assert imported == declared - by_fsspec


def _roots(node: ast.AST) -> list[str]:
    """Top-level packages that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module.partition(".")[0]]
    return []
