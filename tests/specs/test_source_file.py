"""A class of a file, without a package: `--method ./my.py:Mixup`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.common.errors import OptionError, PluginError, UnknownNameError
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import instance, make_spec

Cli = Callable[..., Result]

MINE = """
from __future__ import annotations

from dataclasses import dataclass

from debiasbench import Method, Model, Split, option


@dataclass(frozen=True)
class Mine(Method):
    \"\"\"Trains once.\"\"\"

    alpha: float = option(0.2, "a number", ge=0)

    def fit(self, lab):
        return lab.train(lab.model(), name="train", lr=0.01)


@dataclass(frozen=True)
class Wide(Model):
    \"\"\"One layer.\"\"\"

    units: int = option(16, "width", ge=1)

    def build(self, shape):
        from torch import nn

        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(shape.features, self.units),
            nn.Linear(self.units, shape.classes),
        )


class Helper:
    pass
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.py"
    path.write_text(MINE)
    return path


def test_a_class_of_a_file_is_found_and_its_spec_names_the_content(file: Path) -> None:
    plugins = Plugins()
    spec = make_spec(plugins, method=f"{file}:Mine", model=f"{file}:Wide")
    name, _, digest = spec.method.name.partition("@")
    assert name == "my.py:Mine"
    assert spec.model.name == f"my.py:Wide@{digest}"
    assert spec.method.options == {"alpha": 0.2}
    assert type(instance(plugins.methods, spec.method)).__name__ == "Mine"
    assert str(plugins.methods[spec.method.name].origin) == f"my.py {digest}"
    assert "/" not in spec.stem
    assert spec.method.name in plugins.methods
    assert list(plugins.methods) == list(Plugins().methods)


def test_a_spec_that_names_a_file_does_not_run_it(tmp_path: Path) -> None:
    file = tmp_path / "evil.py"
    file.write_text(f"{MINE}\nopen({str(tmp_path / 'was run')!r}, 'w').close()\n")
    methods = Plugins().methods
    name = f"{file}:Mine"
    with pytest.raises(UnknownNameError):
        methods.find_in_spec(name)
    with pytest.raises(UnknownNameError):
        methods[name]
    assert name not in methods
    assert not methods.is_ambiguous(name)
    assert not (tmp_path / "was run").exists()
    methods.find(name)  # as a person writes it
    assert (tmp_path / "was run").exists()


def test_another_process_loads_the_classes_of_files_that_a_command_has_loaded(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    plugins, other = Plugins(), Plugins()
    spec = make_spec(plugins, method="./my.py:Mine", model="my.py:Wide")
    monkeypatch.chdir(tmp_path.parent)
    assert other.load_files(plugins.files()) == []
    assert instance(other.methods, spec.method) == instance(plugins.methods, spec.method)
    assert other.models[spec.model.name].name == spec.model.name
    file.unlink()
    problems = Plugins().load_files(plugins.files())
    assert ["my.py: No such file" in str(problem) for problem in problems] == [True, True]


def test_the_only_class_of_a_kind_needs_no_name(file: Path) -> None:
    plugins = Plugins()
    named = make_spec(plugins, method=f"{file}:Mine")
    assert make_spec(plugins, method=str(file)) == named


def test_a_change_of_the_file_is_another_spec_at_once(file: Path) -> None:
    plugins = Plugins()
    before = make_spec(plugins, method=f"{file}:Mine")
    stamp = file.stat()
    file.write_text(MINE.replace("0.2", "0.3"))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = make_spec(plugins, method=f"{file}:Mine")
    assert after.method.options == {"alpha": 0.3}
    assert after.method.name != before.method.name
    assert after.id != before.id
    assert instance(plugins.methods, before.method).alpha == 0.2
    assert not list(file.parent.glob("__pycache__"))


def test_equal_files_in_two_folders_are_the_same_spec(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "copy" / "my.py"
    other.parent.mkdir()
    other.write_text(MINE)
    plugins = Plugins()
    assert make_spec(plugins, method=f"{other}:Mine") == make_spec(plugins, method=f"{file}:Mine")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("{file}:Mime", "has no class 'Mime'. Did you mean 'Mine'? Classes: Mine, Wide, Helper"),
        ("{file}:Method", "has no class 'Method'"),  # imported, not defined
        ("{file}:Wide", "is not a method: it must derive from debiasbench.Method"),
        ("{file}:Helper", "is not a method"),
        ("{file}x.py:Mine", "x.py: No such file"),
        ("{folder}/.py:Mine", "cannot read"),
    ],
)
def test_what_cannot_be_found_is_explained(name: str, complaint: str, file: Path) -> None:
    with pytest.raises(OptionError) as error:
        Plugins().methods.find(name.format(file=file, folder=file.parent))
    assert complaint in str(error.value)


def test_a_file_with_two_methods_needs_the_name_of_one(file: Path) -> None:
    file.write_text(MINE.replace("Wide(Model)", "Wide(Mine)"))
    with pytest.raises(OptionError, match=r"my\.py has Mine, Wide: write .*my\.py:CLASS"):
        Plugins().methods.find(str(file))
    file.write_text("")
    with pytest.raises(OptionError, match=r"my\.py has no method: write .*my\.py:CLASS"):
        Plugins().methods.find(str(file))


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("def f(:\n", r"SyntaxError.*my\.py, line 1"),
        ("\nimport nowhere\n", r"No module named 'nowhere' \(.*my\.py, line 2\)"),
        ("import sys; sys.exit(0)\n", "SystemExit: 0"),
    ],
)
def test_an_error_in_the_file_names_its_line(code: str, complaint: str, file: Path) -> None:
    file.write_text(code)
    for _ in range(2):  # a module that failed is not kept
        with pytest.raises(PluginError, match=complaint):
            Plugins().methods.find(f"{file}:Mine")


def test_a_spec_of_a_file_that_is_not_there_says_what_to_write(file: Path) -> None:
    name = make_spec(Plugins(), method=f"{file}:Mine").method.name
    with pytest.raises(UnknownNameError, match=r"run --method FOLDER/my\.py:Mine` "):
        Plugins().methods.find(name)


def test_the_commands_take_classes_of_files(debiasbench: Cli, file: Path) -> None:
    run = ("run", "--dataset", "toy", "--method", "./my.py:Mine", "--epochs", "1")
    first = debiasbench(*run)
    assert first.exit_code == 0, first.output
    assert "my.py:Mine@" in first.stdout
    (path,) = Path("results").glob("*.json")
    record = json.loads(path.read_text())
    assert record["provenance"]["plugins"]["method"].startswith("my.py ")
    again = debiasbench(*run)
    assert "Already done" in again.stdout
    table = debiasbench(
        "compare",
        "erm",
        "my.py:Mine",
        "--dataset",
        "toy",
        "--epochs",
        "1",
        "--seeds",
        "0",
        "--model",
        "my.py:Wide",
        "--set",
        "alpha=0.1,0.3",
    )
    assert table.exit_code == 0, table.output
    assert "my.py:Mine@" in table.stdout
    shown = debiasbench("show", "./my.py:Mine")
    assert "alpha" in shown.stdout
    assert "Trains once." in shown.stdout
    assert debiasbench("show", "./my.py:Nothing").exit_code == 2
    file.write_text(MINE + "# changed\n")
    assert "Already done" not in debiasbench(*run).stdout
