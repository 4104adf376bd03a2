"""Run the code of a plugin so that what it prints, changes and raises is named as the plugin's."""

from __future__ import annotations

import concurrent.futures.thread
import dis
import io
import os
import sys
import threading
import traceback
import warnings
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import Interrupted
from debiasbench.common.global_state import restored
from debiasbench.common.wording import joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)


@contextmanager
def contained(
    owner: str, report: Callable[[str], None] = _warn, *, signals: bool = True
) -> Iterator[None]:
    """Run code of `owner`, such as "method 'mixup' of acme 1.0", inside the context.

    What it prints goes to stderr. `os._exit` raises `SystemExit`, since the process would end
    without a word. Global settings that it changes are restored; `report` gets a message about
    them, and about threads that would keep the process from ending. `signals`: whether handlers of
    signals count as settings; pass False where debiasbench itself changes them.
    """
    threads = set(threading.enumerate())
    try:
        with restored(signals=signals) as changes, redirect_stdout(_ToStderr()), _exit_raises():
            yield
    finally:
        if changes.names:
            report(
                f"{owner} changed {joined(changes.names, 'and')}, which would change the results "
                "of other methods. The change was undone"
            )
        for left in _endless(set(threading.enumerate()) - threads):
            report(
                f"{owner} left a thread running ({left.name}): the program cannot end before it. "
                "Join the thread, or start it with daemon=True"
            )


def _endless(threads: Iterable[threading.Thread]) -> list[threading.Thread]:
    """Return the threads that Python waits for at its end; it ends those of executors itself."""
    executors = getattr(concurrent.futures.thread, "_threads_queues", {})
    return [each for each in threads if not each.daemon and each not in executors]


class _ToStderr(io.TextIOBase):
    """Writes to what `sys.stderr` is at that time; closing it has no effect on stderr."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def writable(self) -> bool:
        return True


@contextmanager
def _exit_raises() -> Iterator[None]:
    """Let `os._exit` raise `SystemExit` inside the context, except in forked processes."""
    leave, process = os._exit, os.getpid()

    def refuse(status: int) -> None:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(f"os._exit({status})")

    names = vars(os)
    names["_exit"] = refuse
    try:
        yield
    finally:
        names["_exit"] = leave


def is_interrupt(error: BaseException) -> bool:
    """Return whether an exception is an interruption by the user, not an error of a plugin.

    A plugin may raise `KeyboardInterrupt` itself. For a Ctrl-C, Python raises it between two
    instructions; code raises it by an instruction of its own.
    """
    if not isinstance(error, KeyboardInterrupt):
        return isinstance(error, Interrupted)
    frames = list(_tracebacks(error))
    if not frames or _package(frames[-1]) == "debiasbench":
        return True
    last = frames[-1]
    raising = {
        instruction.offset
        for instruction in dis.get_instructions(last.tb_frame.f_code)
        if instruction.opname == "RAISE_VARARGS"
    }
    return last.tb_lasti not in raising


def explained(error: BaseException, module: str = "") -> str:
    """Return the type and message of an error in one line, and the line of code that raised it.

    `module`: the module of the plugin; the innermost line of its package is given, or else the
    innermost line outside debiasbench.
    """
    line = _line(error, module.partition(".")[0])
    return f"{first_line(error)}{f' ({line})' if line else ''}"


def first_line(error: BaseException) -> str:
    """Return the type and the first line of the message of an error, in printable characters."""
    try:
        message = str(error)
    except Exception:  # a message may be made by any code
        message = "its message cannot be read"
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text.partition("\n")[0])


def _line(error: BaseException, package: str) -> str:
    own = other = None
    for each in _tracebacks(error):
        if package and _package(each) == package:
            own = each
        elif _package(each) not in {"debiasbench", "importlib", "pluggy"}:
            other = each
    chosen = own or other
    if chosen is None:
        return ""
    path = Path(chosen.tb_frame.f_code.co_filename)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}, line {chosen.tb_lineno}"


def _tracebacks(error: BaseException) -> Iterator[TracebackType]:
    each = error.__traceback__
    while each is not None:
        yield each
        each = each.tb_next


def _package(each: TracebackType) -> str:
    return str(each.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def trace(error: BaseException) -> str:
    """Return the traceback of an error as text."""
    return "".join(traceback.format_exception(error))
