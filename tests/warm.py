"""Processes that begin within a moment: forked from one that has imported torch and what it needs.

An interpreter imports torch, its compiler and scikit-learn for many seconds before it trains.
Processes from here are forked from a server that has done so and nothing else: it has no threads
and has run no test. Tests about imports or numbers of threads need new interpreters.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

import pytest

# all tests that use the server run on one worker, so that there is one server
group = pytest.mark.xdist_group("warm")

# elsewhere a fork of a process that has loaded libraries of the system may crash
SERVER = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
SERVER.set_forkserver_preload(
    [
        "torch",
        "torch._dynamo",  # the first step of an optimizer imports it
        "torch.distributed.run",
        "torch.nn.parallel",
        "sklearn.datasets",
        "pytest",
        "click.testing",
        "debiasbench.cli",
        "debiasbench.testing",
        "debiasbench.runs.session",
        "debiasbench.datasets.imported",
        "debiasbench.models.cnn",
        "debiasbench.models.mlp",
    ]
)


class Process:
    """A process that executes code, as `python -c CODE WORD...` would; ends with its context."""

    def __init__(
        self,
        code: str,
        *words: object,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._said = TemporaryDirectory()
        self._process = SERVER.Process(
            target=_execute,
            args=(
                code,
                [str(word) for word in words],
                str(folder or Path.cwd()),
                dict(os.environ if environment is None else environment),
                self._said.name,
            ),
        )
        self._process.start()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self.wait()
        self._process.close()
        self._said.cleanup()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def is_alive(self) -> bool:
        """Say whether it has not ended."""
        return self._process.is_alive()

    def wait(self) -> int:
        """Wait for the end; return the exit code, or the negative number of the signal."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self._file("stdout")

    @property
    def stderr(self) -> str:
        """What it has written so far."""
        return self._file("stderr")

    def _file(self, name: str) -> str:
        path = Path(self._said.name, name)
        return path.read_text() if path.exists() else ""

    def wait_for(self, text: str) -> None:
        """Wait until it has written a text to stdout."""
        while text not in self.stdout:
            ended = not self._process.is_alive()
            assert not ended or text in self.stdout, self.stderr
            time.sleep(0.02)


def run(
    code: str,
    *words: object,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Execute code in a process of its own, wait for its end, and return what it wrote."""
    with Process(code, *words, folder=folder, environment=environment) as process:
        returned = process.wait()
        return subprocess.CompletedProcess(
            ["python", "-c", code, *map(str, words)], returned, process.stdout, process.stderr
        )


COMMAND = "import sys; from debiasbench.cli import main; main(sys.argv[1:])"


def debiasbench(
    *words: object, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Call the command line in a folder, in a process of its own."""
    return run(COMMAND, *words, folder=folder, environment=environment)


def _execute(
    code: str, words: list[str], folder: str, environment: dict[str, str], said: str
) -> None:
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(said, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *words]
    sys.path[:0] = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
    importlib.invalidate_caches()
    for name in [n for n in sys.modules if n.partition(".")[0] == "tests"]:
        del sys.modules[name]  # a package that is under test has a folder of this name, too
    gc.freeze()  # collecting would copy every page of what was imported
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
