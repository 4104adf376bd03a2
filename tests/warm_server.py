"""The server of `tests.warm`: imports modules, and forks itself for each process that asks.

    python tests/warm_server.py FOLDER

writes the program `FOLDER/python`, and listens until the process that tests ends. A process that
asks sends its words, folder, environment and open files; it receives the number of the fork, and
later how that ended. If it dies, the fork is killed.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

MODULES = (
    "torch",
    "torch._dynamo",  # the first step of an optimizer imports it
    "torch.distributed.run",
    "torch.nn.parallel",
    "torchvision",
    "sklearn.datasets",
    "pandas",
    "pytest",
    "click.testing",
    "debiasbench.cli",
    "debiasbench.testing",
    "debiasbench.runs.session",
    "debiasbench.datasets.imported",
    "debiasbench.models.cnn",
    "debiasbench.models.mlp",
)

PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys

def inherited(descriptor):
    try:
        return os.get_inheritable(descriptor)
    except OSError:  # the one that listed the descriptors
        return False

open_files = [d for d in map(int, os.listdir("/proc/self/fd")) if inherited(d)]
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ), open_files]).encode()
socket.send_fds(server, [len(request).to_bytes(8, "big")], open_files)
server.sendall(request)
answers = server.makefile()
fork = int(answers.readline())

def pass_on(number, frame):
    try:
        os.kill(fork, number)
    except ProcessLookupError:
        pass

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, pass_on)
code = int(answers.readline() or 1)
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class Server:
    """Forks this process for each one that asks; see `serve`."""

    def __init__(self, folder: Path) -> None:
        self._program = folder / "python"
        address = str(folder / "socket")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(address)
        self._listening.listen(64)
        self._program.write_text(PROGRAM.format(python=sys.executable, address=address))
        self._program.chmod(0o755)
        self._waiting = selectors.DefaultSelector()

    def serve(self, tester: int) -> list[str] | None:
        """Answer until the process `tester` ends: return None; in a fork, return its words."""
        ends = os.pidfd_open(tester)
        self._waiting.register(ends, selectors.EVENT_READ)
        self._waiting.register(self._listening, selectors.EVENT_READ, self._accept)
        while True:
            for key, _ in self._waiting.select():
                if key.fd == ends:
                    return None
                known = self._waiting.get_map().get(key.fd)
                if known is not None and known.data is key.data:  # not let go of a moment ago
                    words = key.data()
                    if words is not None:
                        return list(words)

    def _accept(self) -> list[str] | None:
        """Fork for a process that asks; in the fork, return its words."""
        asking, _ = self._listening.accept()
        size, files, _, _ = socket.recv_fds(asking, 8, 253)
        length, request = int.from_bytes(size, "big"), b""
        while chunk := asking.recv(length - len(request)) if len(request) < length else b"":
            request += chunk
        if len(request) < length or not size:  # it died while it asked
            asking.close()
            for file in files:
                os.close(file)
            return None
        words, folder, environment, descriptors = json.loads(request)
        fork = os.fork()
        if fork == 0:
            asking.close()
            os.setsid()
            _become(folder, environment, dict(zip(descriptors, files, strict=True)))
            sys.executable = str(self._program)
            return list(words)
        for file in files:
            os.close(file)
        self._watch(fork, asking)
        return None

    def _watch(self, fork: int, asking: socket.socket) -> None:
        """Tell the process that asked how its fork ended; kill the fork if that process dies."""
        ended = os.fdopen(os.pidfd_open(fork), "rb", buffering=0)

        def tell() -> None:
            _, status = os.waitpid(fork, 0)
            with suppress(OSError):
                asking.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            for each in (asking, ended):
                if each.fileno() in self._waiting.get_map():
                    self._waiting.unregister(each)
                each.close()

        def kill() -> None:
            self._waiting.unregister(asking)
            with suppress(ProcessLookupError):
                os.killpg(fork, signal.SIGKILL)  # it began a session
            with suppress(ProcessLookupError):
                os.kill(fork, signal.SIGKILL)  # if it had not yet

        with suppress(OSError):
            asking.sendall(b"%d\n" % fork)
        self._waiting.register(asking, selectors.EVENT_READ, kill)
        self._waiting.register(ended, selectors.EVENT_READ, tell)


def _become(folder: str, environment: dict[str, str], files: dict[int, int]) -> None:
    """Take a folder, an environment and files: where each one belongs, and where it is."""
    aside = {number: os.dup(file) for number, file in files.items()}
    while clash := set(aside.values()) & files.keys():
        aside.update({n: os.dup(file) for n, file in aside.items() if file in clash})
    for file in files.values():
        os.close(file)
    for number, file in aside.items():
        os.dup2(file, number)
    for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers
        if number not in files and number > 2:  # the server's, whose objects stay until the end
            with suppress(OSError):
                os.close(number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def execute(words: list[str]) -> None:
    """Do what `python WORD...` does."""
    isolated = False
    safe = False
    while words and words[0].startswith("-") and words[0] not in {"-c", "-m"}:
        option = words.pop(0)
        isolated |= option == "-I"
        safe |= option in {"-I", "-P"}
        if option.startswith("-W"):
            warnings._setoption(option[2:] or words.pop(0))  # type: ignore[attr-defined]
        elif option not in {"-I", "-P", "-E", "-s", "-u"}:
            raise SystemExit(f"tests/warm_server.py: no option {option}")
    own = "" if isolated else os.environ.get("PYTHONPATH", "")
    sys.path[:0] = [folder for folder in own.split(os.pathsep) if folder]
    importlib.invalidate_caches()
    for name in [n for n in sys.modules if n.partition(".")[0] == "tests"]:
        del sys.modules[name]  # a package that is under test has a folder of this name, too
    kind = words.pop(0)
    first = {"-c": "", "-m": str(Path.cwd())}.get(kind, str(Path(kind).parent.absolute()))
    if not safe:
        sys.path.insert(0, first)
    if kind == "-m":
        sys.argv[:] = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        return
    sys.argv[:] = [kind, *words[kind == "-c" :]]
    code = words[0] if kind == "-c" else Path(kind).read_text()
    main = type(sys)("__main__")
    if kind != "-c":
        main.__file__ = kind
    sys.modules["__main__"] = main
    exec(compile(code, "<string>" if kind == "-c" else kind, "exec"), main.__dict__)


def _end(code: int) -> NoReturn:
    """End as an interpreter does, but without giving back the memory of every module."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)


def main(folder: Path) -> None:
    """Import what is needed, and serve; in a fork, do what it was asked to do."""
    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # collecting would copy every page of what was imported
    server = Server(folder)
    if number := os.fork():  # who waits for this process can go on
        (folder / "server").write_text(str(number))
        os._exit(0)
    os.setsid()
    words = server.serve(int((folder / "tester").read_text()))
    if words is None:
        return
    code: Any = 0
    try:
        execute(words)
    except SystemExit as end:
        code = end.code
        if not (code is None or isinstance(code, int)):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    _end(code or 0)


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file, which would hide other modules
    main(Path(sys.argv[1]))
