"""The structure, held against the code: who may import whom, and what may be said only once."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "debiasbench"

# from the ground up: a package imports only from packages before it, and from itself
LAYERS = [
    "common",
    "sparsity",
    "core",
    "files",
    "specs",
    "records",
    "training",
    "runs",
    "measure",
    "models",
    "datasets",
    "methods",
    "leaderboard",
    "testing",
    "cli",
]
RANK = {name: rank for rank, name in enumerate(LAYERS)}

# builtin plugins use what strangers use, so that each can move to a distribution of its own
PLUGIN_API = {"common", "sparsity", "core", "files"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """The package a file belongs to: `cli` for cli/run.py; `testing` is a module of its own."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Parts of debiasbench that a file imports when it runs, at its top or inside functions."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("debiasbench"):
            words = (node.module or "").split(".")
            found.update([words[1]] if len(words) > 1 else [alias.name for alias in node.names])
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found.update(n[1] for n in names if n[0] == "debiasbench" and len(n) > 1)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text("utf-8")))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = part(path)
    if own in {"__init__", "__main__"}:
        return
    for other in imports(path) - {own}:
        assert RANK[other] < RANK[own], f"{own} imports {other}, which stands no lower"


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
        (r"torch\.cuda|\.cuda\(|['\"]cuda['\"]", {"training/device.py"}),
        (r"torch\.manual_seed", {"common/randomness.py"}),
        (r"np\.random\.seed|random\.seed", {"testing.py"}),
        (r"\* (\w+\.)?num_biases \+", {"core/data.py"}),
        (r"(?<!allow_)pickle|torch\.load|allow_pickle=True", set()),
        # `testing` drives updaters in a loop as a user of the sparsity library has it
        # and `bench` times steps that are not the engine's
        (
            r"optimizer\.step\(|\.step\((self\.)?optimizer",
            {"training/step.py", "testing.py", "measure/baselines.py"},
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


def test_every_file_says_in_its_first_line_what_it_is() -> None:
    for path in modules():
        doc = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert doc, path
        assert doc.splitlines()[0].endswith((".", ":")), path
