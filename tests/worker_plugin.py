"""A plugin and a command line in processes of their own, for tests of workers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests import warm

HEAD = 'name = "s"\ndescription = "d"\nsource = "s"\n[base]\ndataset = "digits"\nmodel = "mlp"\n'

PLUGIN = """
import os, signal, sys, time
from dataclasses import dataclass
from pathlib import Path
from debiasbench import Method, hookimpl
from debiasbench.common import signals

@dataclass(frozen=True)
class Exits(Method):
    def fit(self, lab):
        sys.exit(0)

@dataclass(frozen=True)
class Untrained(Method):  # without an optimizer, whose first import takes seconds
    def fit(self, lab):
        return lab.model()

@dataclass(frozen=True)
class Vanishes(Method):
    def fit(self, lab):
        os.kill(os.getpid(), signal.SIGKILL)

@dataclass(frozen=True)
class Waits(Method):  # until there is a file `go` in the working folder
    def fit(self, lab):
        while not Path("go").exists():
            signals.check()
            time.sleep(0.02)
        return lab.model()

@hookimpl
def debiasbench_register_methods(register):
    register("exits", Exits)
    register("untrained", Untrained)
    register("vanishes", Vanishes)
    register("waits", Waits)
"""

Begin = Callable[..., "subprocess.Popen[str]"]


def command_line(folder: Path, *, python: str | None = None, **variables: str) -> Begin:
    """Write the plugin into a folder; return what begins a command in the working folder.

    `python`: the interpreter, by default one that has imported torch before.
    """
    installed = folder / "acme-1.0.dist-info"
    installed.mkdir(parents=True)
    (folder / "acme.py").write_text(PLUGIN)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[debiasbench]\nacme = acme\n")
    paths = [str(folder), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "DEBIASBENCH_PLUGINS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **variables,
    }

    def begin(*words: object) -> subprocess.Popen[str]:
        # -P: as the script `debiasbench`, which does not import from the working folder
        return subprocess.Popen(
            [python or warm.python(), "-P", "-m", "debiasbench", *map(str, words)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    return begin


def sweep_here(suite: str, results: str) -> None:
    """Train the runs of a suite in this process."""
    from click.testing import CliRunner

    from debiasbench.cli import main

    words = ["sweep", suite, "--device", "cpu", "--results", results, "--quiet"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output


def equal_records(one: str, other: str) -> None:
    """Assert that two folders have the same results, bit for bit."""
    from safetensors.numpy import load_file

    from debiasbench.records.store import read

    assert [path.name for path in _records(one)] == [path.name for path in _records(other)]
    for path in _records(one):
        first, second = read(path), read(Path(other) / path.name)
        assert repr(first.outcomes) == repr(second.outcomes)  # NaN is not equal to itself
        assert first.curves == second.curves
        assert first.predictions is not None
        file = first.predictions["file"]
        left, right = (load_file(Path(place) / file) for place in (one, other))
        assert left.keys() == right.keys()
        for name, values in left.items():
            np.testing.assert_array_equal(values, right[name])


def _records(place: str) -> list[Path]:
    return sorted(Path(place).glob("*.json"))
