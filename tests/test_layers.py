"""The structure, held against the code: who may import whom, and what may be said only once."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.import_graph import graph, module_name

PACKAGE = Path(__file__).parent.parent / "debiasbench"

# from the ground up: a package imports only from packages before it, and from itself
LAYERS = [
    "common",
    "sparsity",
    "core",
    "parts",
    "files",
    "specs",
    "records",
    "leaderboard",
    "training",
    "runs",
    "submissions",
    "measure",
    "models",
    "datasets",
    "methods",
    "testing",
    "cli",
]
RANK = {name: rank for rank, name in enumerate(LAYERS)}

# builtin plugins use what strangers use, so that each can move to a distribution of its own
PLUGIN_API = {"common", "sparsity", "core", "parts", "files"}


GRAPH = graph(PACKAGE)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """The package a file belongs to: `cli` for cli/run.py."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Parts of debiasbench that a file imports: at its top, in functions, and for types only."""
    targets = GRAPH[module_name(path, PACKAGE)]
    assert "debiasbench" not in targets, f"{path}: import from the module that defines the name"
    return {target.split(".")[1] for target in targets}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = part(path)
    if own in {"__init__", "__main__"}:
        return
    for other in imports(path) - {own}:
        assert RANK[other] < RANK[own], f"{own} imports {other}, which stands no lower"


def cycle(imported: dict[str, set[str]]) -> list[str]:
    """Return modules of which each is imported by the next, and the first once more at the end."""
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        modules_in_it: list[str] = error.args[1]
        return modules_in_it
    return []


def test_no_files_import_each_other_in_a_circle() -> None:
    # the top of the package imports its names when they are used
    assert cycle({name: targets for name, targets in GRAPH.items() if name != "debiasbench"}) == []


@pytest.mark.parametrize(
    "back",
    [
        "import made.a",
        "from made import a",
        "from made.a import something",
        "from . import a",
        "from .a import something",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from made.a import something",
        "def function():\n    from made.a import something",
        "from made.deep import c",
        "from .deep.c import something",
    ],
)
def test_a_circle_is_found_however_it_is_imported(back: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "__init__.py").touch()
    (made / "deep" / "__init__.py").touch()
    (made / "deep" / "c.py").write_text("from .. import a\n")
    (made / "a.py").write_text("import os\nfrom made import b\n")
    (made / "b.py").write_text("from os import path\n")
    assert cycle(graph(made)) == []
    (made / "b.py").write_text(f"{back}\n")
    assert {"made.a", "made.b"} <= set(cycle(graph(made)))


@pytest.mark.parametrize("kind", ["methods", "datasets", "models"])
def test_builtin_plugins_use_what_strangers_use(kind: str) -> None:
    for path in (PACKAGE / kind).rglob("*.py"):
        assert imports(path) <= PLUGIN_API | {kind}, path


def test_the_sparsity_library_imports_only_what_is_common() -> None:
    for path in (PACKAGE / "sparsity").rglob("*.py"):
        assert imports(path) <= {"sparsity", "common"}, path


def test_no_method_imports_another_methods_module() -> None:
    shared = {"__init__", "sparsifiers"}  # the lists of what is registered
    for path in (PACKAGE / "methods").glob("*.py"):
        if path.stem in shared:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            assert not [n for n in names if n.startswith("debiasbench.methods")], path


@cache
def code(path: Path) -> str:
    """The source without comments and docstrings."""
    return ast.unparse(WithoutDocstrings().visit(ast.parse(path.read_text("utf-8"))))


class WithoutDocstrings(ast.NodeTransformer):
    """Empties strings that stand alone."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value.value = ""
        return node


def occurrences(pattern: str) -> set[str]:
    return {str(path.relative_to(PACKAGE)) for path in modules() if re.search(pattern, code(path))}


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        (r"torch\.cuda|\.cuda\(|['\"]cuda['\"]", {"training/device.py", "training/graph.py"}),
        (r"torch\.manual_seed", {"common/randomness.py"}),
        (r"np\.random\.seed|random\.seed", {"common/randomness.py"}),
        (r"\* (\w+\.)?num_biases \+", {"core/data.py"}),
        (r"(?<!allow_)pickle|torch\.load|allow_pickle=True", set()),
        # `testing` drives updaters in a loop as a user of the sparsity library has it
        # and `bench` times steps that are not the engine's
        (
            r"optimizer\.step\(|\.step\((self\.)?optimizer",
            {"training/step.py", "testing/sparsity.py", "measure/baselines.py"},
        ),
    ],
)
def test_what_belongs_in_one_place_is_in_no_other(pattern: str, allowed: set[str]) -> None:
    assert occurrences(pattern) == allowed


def test_no_method_is_named_in_the_harness() -> None:
    names = r"\b(erm|upweight|groupdro|jtt|lff|dfr|rest)\b"
    strings = re.compile(rf"[\"']{names}[\"']")
    plugins = {"methods", "datasets", "sparsity"}
    harness = [p for p in modules() if part(p) not in plugins]
    assert [p for p in harness if strings.search(p.read_text("utf-8"))] == []


def test_no_file_holds_more_than_one_can_keep_in_mind() -> None:
    lines = {str(path): len(path.read_text("utf-8").splitlines()) for path in modules()}
    assert {path: count for path, count in lines.items() if count > 450} == {}


def test_every_file_says_in_its_first_line_what_it_is() -> None:
    for path in modules():
        doc = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert doc, path
        assert doc.splitlines()[0].endswith((".", ":")), path
