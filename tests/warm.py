"""Interpreters that begin within a moment: forked from one that has imported torch and the rest.

An interpreter imports torch, its compiler and scikit-learn for many seconds before it trains.
`python()` returns a program that takes the words of `python` and is such an interpreter: a small
process asks a server for a fork, hands over its files, folder and environment, passes on signals,
and ends as the fork does. The server has imported modules and has done nothing else.

Tests about what is imported, or about numbers of threads, need `sys.executable`.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

FOLDER = "DEBIASBENCH_TEST_WARM"  # the variable with the server's folder, set in conftest.py

PATIENCE = 60.0  # seconds until an interpreter that was killed has ended

COMMAND = "import sys; from debiasbench.cli import main; main(sys.argv[1:])"


def python() -> str:
    """Return the path of a program that takes the words of `python`; start its server first."""
    if sys.platform != "linux":  # elsewhere, a fork after the import of libraries may crash
        return sys.executable
    folder = Path(os.environ[FOLDER])
    with (folder / "lock").open("w") as lock:  # of the workers of pytest-xdist, one starts it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "server").exists():
            server = str(Path(__file__).with_name("warm_server.py"))
            command = [sys.executable, server, str(folder)]
            with (folder / "log").open("w") as log:  # it returns, and goes on in the background
                begun = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
                )
            assert begun.returncode == 0, (folder / "log").read_text()
    return str(folder / "python")


def _with_tests(environment: Mapping[str, str] | None) -> dict[str, str]:
    """Return an environment in which code can import from `tests`."""
    variables = dict(os.environ if environment is None else environment)
    paths = [variables.get("PYTHONPATH", ""), str(Path(__file__).parents[1])]
    return {**variables, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def end() -> None:
    """End the server, if there is one."""
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int(Path(os.environ[FOLDER], "server").read_text()), signal.SIGTERM)


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
        # the interpreter has the other end; if it is killed, it may live on for a moment, in which
        # the program that passed its words on has ended
        self._lives, end = os.pipe()
        with self._file("stdout").open("w") as stdout, self._file("stderr").open("w") as stderr:
            self._process = subprocess.Popen(
                [python(), "-P", "-c", code, *map(str, words)],
                cwd=folder,
                env=_with_tests(environment),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=[end],
            )
        os.close(end)

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
        os.close(self._lives)
        self._said.cleanup()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def is_alive(self) -> bool:
        """Say whether it has not ended."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for the end; return the exit code, or the negative number of the signal."""
        code = self._process.wait()
        select.select([self._lives], [], [], PATIENCE)
        return code

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self._file("stdout").read_text()

    @property
    def stderr(self) -> str:
        """What it has written so far."""
        return self._file("stderr").read_text()

    def _file(self, name: str) -> Path:
        return Path(self._said.name, name)

    def wait_for(self, text: str) -> None:
        """Wait until it has written a text to stdout."""
        while text not in self.stdout:
            ended = not self.is_alive()
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


def debiasbench(
    *words: object, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Call the command line in a folder, in a process of its own."""
    return run(COMMAND, *words, folder=folder, environment=environment)
