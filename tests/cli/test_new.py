"""`debiasbench new`: the packages that it writes work, and nothing is overwritten."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.cli.new import TEMPLATES
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.registry import Origin

Cli = Callable[..., Result]
KINDS = ["method", "dataset", "model"]


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Make the modules of a written package importable, until the end of the test."""
    yield monkeypatch.syspath_prepend
    for name in [name for name in sys.modules if name.startswith("debiasbench_")]:
        del sys.modules[name]


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_passes_its_own_tests(
    kind: str, debiasbench: Cli, packages: Callable[[Path], None]
) -> None:
    result = debiasbench("new", kind, "one-idea")
    assert result.exit_code == 0, result.output
    folder = Path("debiasbench-one-idea").resolve()
    assert files(folder) == [
        "README.md",
        "debiasbench_one_idea/__init__.py",
        f"debiasbench_one_idea/{kind}.py",
        "pyproject.toml",
        "tests/test_one_idea.py",
    ]
    for file in files(folder):
        assert f"  {file}\n" in result.stdout
    packages(folder)
    spec = importlib.util.spec_from_file_location("t", folder / "tests" / "test_one_idea.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [test for name, test in vars(module).items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


@pytest.mark.parametrize("kind", KINDS)
def test_the_entry_point_of_a_new_package_is_a_plugin(
    kind: str, debiasbench: Cli, packages: Callable[[Path], None]
) -> None:
    debiasbench("new", kind, "idea", "--folder", "inside")
    folder = Path("inside/debiasbench-idea").resolve()
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    ((name, value),) = project["entry-points"]["debiasbench"].items()
    packages(folder)
    plugin = importlib.metadata.EntryPoint(name, value, "debiasbench").load()
    plugins = Plugins([(plugin, Origin(project["name"], project["version"]))])
    assert plugins.broken == []
    assert plugins.warnings == []
    entry = plugins.kinds()[f"{kind}s"]["idea"]
    assert entry.load().__name__ == "Idea"
    assert entry.summary().startswith("Idea: say in one line")


@pytest.mark.parametrize(
    ("name", "class_name"),
    [
        ("margin", "Margin"),
        ("my-own_idea2", "MyOwnIdea2"),
        ("none", "None{kind}"),  # a keyword
        ("option", "Option"),
        ("method", "Method{kind}"),  # the template uses these names
        ("objective", "Objective{kind}"),
    ],
)
def test_any_valid_name_gives_a_valid_module(
    name: str, class_name: str, debiasbench: Cli, packages: Callable[[Path], None]
) -> None:
    assert debiasbench("new", "method", name).exit_code == 0
    packages(Path(f"debiasbench-{name.replace('_', '-')}").resolve())
    module = importlib.import_module(f"debiasbench_{name.replace('-', '_')}.method")
    assert issubclass(vars(module)[class_name.format(kind="Method")], module.Method)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("MixAll", "'MixAll' is not a valid name: write lower-case letters"),
        ("MixAll", "Did you mean 'mixall'?"),
        ("my method", "Did you mean 'my-method'?"),
        ("../up", "Did you mean 'up'?"),
        ("3d", "and begin with a letter"),
        ("a--b", "Did you mean 'a-b'?"),
        ("", "NAME is empty"),
        ("x:y", "Did you mean 'x-y'?"),
        ("erm", "method 'erm' exists already, in debiasbench "),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name: str, complaint: str, debiasbench: Cli) -> None:
    result = debiasbench("new", "method", name)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert list(Path().iterdir()) == []


def test_nothing_is_overwritten(debiasbench: Cli) -> None:
    Path("debiasbench-idea").mkdir()
    Path("debiasbench-idea/notes.txt").write_text("mine")
    result = debiasbench("new", "method", "idea")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: debiasbench-idea exists already: remove it, or choose another name or --folder\n"
    )
    assert files(Path("debiasbench-idea")) == ["notes.txt"]


def test_a_folder_that_cannot_be_written_is_an_error_in_one_line(debiasbench: Cli) -> None:
    Path("file").touch()
    result = debiasbench("new", "method", "idea", "--folder", "file/below")
    assert result.exit_code == 7
    assert result.stderr.startswith("Error: Cannot write file/below/debiasbench-idea: ")


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_a_new_package_is_formatted_and_linted(kind: str, debiasbench: Cli) -> None:
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    debiasbench("new", kind, "one-idea")
    settings = str(TEMPLATES.parents[2] / "pyproject.toml")
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", settings, "--no-cache", "."],
            cwd="debiasbench-one-idea",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
