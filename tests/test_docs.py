"""The documents, held against the code."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import torch

from debiasbench.core import hooks
from debiasbench.records.metrics import METRICS
from debiasbench.records.selection import RULES
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.registry import Origin
from debiasbench.testing import check_method

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_readmes_plugin_is_a_sound_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "readme_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    plugin = importlib.import_module("readme_plugin")
    entry = Plugins([(plugin, Origin("readme", "0"))]).methods["balanced"]
    check_method(entry.load()())


def test_the_readmes_sparse_loop_runs_as_it_stands() -> None:
    _, code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    model = torch.nn.Linear(20, 3)
    rng = torch.Generator().manual_seed(0)
    batches = [(torch.rand(8, 20, generator=rng), torch.arange(8) % 3) for _ in range(40)]
    names: dict[str, Any] = {
        "torch": torch, "model": model, "batches": batches,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }  # fmt: skip
    exec(code, names)
    assert int((model.weight != 0).sum()) <= round(0.05 * 60)
    assert names["sparse"].updates > 0
    assert names["checkpoint"]["sparse"]["step"] == 40


def test_every_hook_is_documented_by_its_signature() -> None:
    tutorial = (ROOT / "plugins" / "README.md").read_text()
    for name in vars(hooks):
        if name.startswith("debiasbench_"):
            assert f"`{name}(register)`" in tutorial


@pytest.mark.parametrize("name", [*METRICS, *RULES])
def test_the_readme_names_every_metric_and_selection_rule(name: str) -> None:
    assert f"`{name}`" in README


def test_every_command_of_the_readme_is_one_that_exists() -> None:
    from debiasbench.cli import main

    commands = re.findall(r"^\$ debiasbench (\w+)", README, re.MULTILINE)
    assert set(commands) == set(main.commands)


def test_options_that_the_readme_uses_exist() -> None:
    from debiasbench.cli import main

    for name, words in re.findall(r"^\$ debiasbench (\w+)([^#\n]*)", README, re.MULTILINE):
        command = main.commands[name]
        if isinstance(command, click.Group):
            command = command.commands[words.split()[0]]
        known = {o for p in command.params for o in p.opts}
        assert set(re.findall(r"(--[\w-]+)", words)) <= known, (name, words)


def test_ci_and_the_readme_say_the_same_two_lines() -> None:
    install = "pip install . && debiasbench run --method rest"
    test = 'pip install -e ".[test]" && pytest'
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert f"$ {install}\n" in README
    assert f"$ {test}\n" in README
    assert f"- run: {install}\n" in workflow
    assert f"- run: {test}\n" in workflow


def test_the_packages_declared_are_those_the_code_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=\[ ]", d)[0] for d in project["dependencies"]}
    names = {"PIL": "pillow", "sklearn": "scikit-learn"}
    imported = {
        names.get(module, module)
        for path in (ROOT / "debiasbench").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for module in _roots(node)
        if module not in {*sys.stdlib_module_names, "debiasbench"}
    }
    assert imported == declared


def _roots(node: ast.AST) -> list[str]:
    """Top-level packages that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module.partition(".")[0]]
    return []
