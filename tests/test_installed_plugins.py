"""Example packages, built and installed with pip, and the tutorial, run as written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PLUGINS = ROOT / "plugins"
TRACKERS = ["debiasbench-mlflow", "debiasbench-tensorboard"]  # their libraries may be missing
PACKAGES = ["debiasbench-halfway", "debiasbench-signed-set", "debiasbench-tabular", *TRACKERS]


def environment(site: Path) -> dict[str, str]:
    """An environment whose `pip install` builds without a network and installs into `site`.

    `pip`, `debiasbench` and `pytest` are those of the interpreter that runs the tests.
    """
    kept = {k: v for k, v in os.environ.items() if k != "DEBIASBENCH_PLUGINS"}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",  # this checkout, wherever it is installed from
        "PIP_TARGET": str(site),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this as "no isolation"
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def call(command: str, folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        shlex.split(command),
        cwd=folder,
        env=environment(site),
        capture_output=True,
        text=True,
        check=False,
    )


def succeed(command: str, folder: Path, site: Path) -> str:
    done = call(command, folder, site)
    assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# what the scripts of these names do, in a process that has imported torch
SCRIPTS = {
    name: f"import sys\nfrom {module} import {function}\n"
    f"sys.argv[0] = {name!r}\nsys.exit({function}())\n"
    for name, module, function in [
        ("debiasbench", "debiasbench.cli", "main"),
        ("pytest", "pytest", "console_main"),
    ]
}


def call_warm(command: str, folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    name, *words = shlex.split(command)
    return warm.run(SCRIPTS[name], *words, folder=folder, environment=environment(site))


def succeed_warm(command: str, folder: Path, site: Path) -> str:
    done = call_warm(command, folder, site)
    assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def write_package(folder: Path, name: str, code: str) -> Path:
    """Write an installable package of one module, version 2.0, with an entry point."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "{name}"\nversion = "2.0"\n'
        f'[project.entry-points.debiasbench]\n{name} = "{name}"\n'
        f'[tool.hatch.build.targets.wheel]\ninclude = ["{name}.py"]\n'
    )
    (folder / f"{name}.py").write_text(code)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of plugins/ installed."""
    folder = tmp_path_factory.mktemp("site")
    packages = " ".join(f"'{PLUGINS / name}'" for name in PACKAGES)
    succeed(f"pip install -q {packages}", folder, folder)
    return folder


def test_list_shows_installed_plugins_with_distribution_and_version(
    site: Path, tmp_path: Path
) -> None:
    lines = succeed("debiasbench list", tmp_path, site).splitlines()
    of = {line.split()[0]: line for line in lines if line}
    assert "debiasbench-halfway 0.1.0" in of["halfway"]
    assert "debiasbench-tabular 0.1.0" in of["breast-cancer"]
    assert "debiasbench-tabular 0.1.0" in of["tabular-resnet"]
    assert "debiasbench-signed-set 0.1.0" in of["signed-set"]
    assert "debiasbench-tensorboard 0.1.0" in of["tensorboard"]
    assert "debiasbench-mlflow 0.1.0" in of["mlflow"]
    assert "Halfway: learn all groups alike" in of["halfway"]


def test_an_installed_method_data_set_and_model_run_and_reach_the_leaderboard(
    site: Path, tmp_path: Path
) -> None:
    run = "debiasbench run --dataset breast-cancer --epochs 3 --method halfway --set switch=0.4"
    shown = succeed_warm(f"{run} --sparse signed-set:density=0.5", tmp_path, site)
    assert "with tabular-resnet" in shown
    table = succeed("debiasbench leaderboard", tmp_path, site)
    assert "### breast-cancer" in table
    assert re.search(r"^\| halfway \+ signed-set ", table, re.MULTILINE)


def test_a_plugin_that_fails_to_import_is_named_and_the_others_work(
    tmp_path: Path,
) -> None:
    package = write_package(tmp_path / "acme", "acme", "import acme_core\n")
    own = tmp_path / "site"
    succeed("pip install -q .", package, own)
    done = call("debiasbench list methods", tmp_path, own)
    assert done.returncode == 0
    assert done.stderr == (
        "Warning: plugin 'acme' of acme 2.0 did not load: "
        "ModuleNotFoundError: No module named 'acme_core' (site/acme.py, line 1)\n"
    )
    assert "rest" in done.stdout


def test_without_plugins_there_are_only_builtins(site: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["debiasbench", "run", "--method", "halfway"],
        cwd=tmp_path,
        env=environment(site) | {"DEBIASBENCH_PLUGINS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Unknown method 'halfway'" in done.stderr


@pytest.fixture(scope="module")
def outcomes(site: Path) -> str:
    """What pytest prints of the packages' own tests, all run in one process."""
    folders = " ".join(f"'{PLUGINS / name / 'tests'}'" for name in PACKAGES)
    warm_is = "-W ignore::pytest.PytestAssertRewriteWarning"  # the process has imported plugins
    return succeed_warm(f"pytest -q -n 0 -rA -p no:cacheprovider {warm_is} {folders}", site, site)


@pytest.mark.parametrize("name", PACKAGES)
def test_the_packages_own_tests_pass(name: str, outcomes: str) -> None:
    lines = [line for line in outcomes.splitlines() if f"{name}/tests/" in line]
    passed = [line for line in lines if line.startswith("PASSED ")]
    assert passed
    missing = re.compile(r"SKIPPED \[1\] .* is not installed") if name in TRACKERS else None
    for line in lines:
        assert line in passed or (missing is not None and missing.match(line)), line


RIVAL = """
from debiasbench import Method, hookimpl

print("printed at import")

class Rival(Method):
    def fit(self, lab):
        print("printed in fit")
        return lab.train(lab.model(), name="train")

@hookimpl
def debiasbench_register_methods(register):
    register("erm", Rival)
"""


def test_two_installed_distributions_with_one_name_are_an_error_for_who_uses_the_name(
    tmp_path: Path,
) -> None:
    package = write_package(tmp_path / "rival", "rival", RIVAL)
    own = tmp_path / "site"
    succeed("pip install -q .", package, own)
    listed = call("debiasbench list methods", tmp_path, own)
    assert listed.returncode == 0
    assert re.fullmatch(
        r"printed at import\n"
        r"Warning: Two distributions register method 'erm': debiasbench \S+ and rival 2\.0\. "
        r"To use it, write debiasbench:erm or rival:erm\n",
        listed.stderr,
    )
    assert {"debiasbench:erm", "rival:erm", "rest"} <= set(re.split(r"[\s]+", listed.stdout))
    run = "debiasbench run --dataset digits --model mlp --epochs 1"
    refused = call(f"{run} --method erm", tmp_path, own)
    assert refused.returncode == 3
    assert "Write debiasbench:erm or rival:erm" in refused.stderr
    assert "debiasbench" in succeed("debiasbench show debiasbench:erm", tmp_path, own)
    rival = call_warm(f"{run} --method rival:erm", tmp_path, own)
    assert "Record: results/digits-rival_erm-0-" in rival.stdout
    assert "printed" not in rival.stdout
    assert "printed in fit" in rival.stderr


BLOCK = re.compile(
    r"(?:^`(?P<file>[\w.-]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    folder, site = tmp_path / "tutorial", tmp_path / "site"
    folder.mkdir()
    outputs: dict[str, str] = {}
    for block in BLOCK.finditer((ROOT / "docs" / "plugins.md").read_text()):
        if block["file"]:
            (folder / block["file"]).write_text(block["text"])
        else:
            assert block["kind"] == "console", block["text"]
            for line in block["text"].splitlines():
                command = line.removeprefix("$ ")
                trains = command.startswith(("debiasbench run ", "pytest "))
                outputs[command] = (succeed_warm if trains else succeed)(command, folder, site)
    assert (
        "Record: results/digits-margin-0-" in outputs["debiasbench run --method margin --epochs 2"]
    )
    assert "2 passed" in outputs["pytest -q debiasbench-margin"]
    assert (
        "Record: results/digits-debiasbench_equal.py_Equal_"
        in (outputs["debiasbench run --method ./debiasbench_equal.py:Equal --epochs 2"])
    )
    assert "debiasbench-equal 0.1.0" in outputs["debiasbench list methods"]
    assert "Supervision: train=groups, val=none" in outputs["debiasbench show equal"]
    assert "Record: results/digits-equal-0-" in outputs["debiasbench run --method equal --epochs 2"]
    assert "| equal" in outputs["debiasbench leaderboard"]
    assert "1 passed" in outputs["pytest -q test_equal.py"]
    assert "5 passed" in outputs["pytest -q test_kinds.py"]
