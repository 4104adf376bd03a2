"""Copies of a process: the same results in order, errors, and a copy that is killed."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from debiasbench.common import copies

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="copies work on Linux only")


def in_a_new_process(code: str) -> str:
    """Run code in a process without torch and without other threads; return what it prints."""
    head = (
        "import os, signal, time\nfrom debiasbench.common import copies\n"
        "os.sched_getaffinity = lambda _: {0, 1, 2}\nown = os.getpid()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


@LINUX
def test_results_come_in_order_from_other_processes() -> None:
    code = """
def call(i):
    time.sleep(0.02 * (i % 3))
    return i, os.getpid()
found = list(copies.copied(call, [(i,) for i in range(40)]))
print([i for i, _ in found] == list(range(40)), own in {p for _, p in found})
print(len({p for _, p in found}) > 1)
"""
    assert in_a_new_process(code) == "True False\nTrue"


@LINUX
def test_jobs_need_not_be_picklable_because_copies_know_them() -> None:
    code = "print(list(copies.copied(lambda call: call(), [(lambda: 1,), (lambda: 2,)])))"
    assert in_a_new_process(code) == "[1, 2]"


@LINUX
def test_an_error_in_a_copy_is_raised_here() -> None:
    code = """
try:
    list(copies.copied(lambda i: 1 // i, [(1,), (0,), (1,)]))
except ZeroDivisionError as error:
    print(error)
"""
    assert "division" in in_a_new_process(code)


@LINUX
def test_the_work_of_a_copy_that_is_killed_is_done_here() -> None:
    code = """
def call(i):
    if i == 5 and os.getpid() != own:
        os.kill(os.getpid(), signal.SIGKILL)
    return i
print(list(copies.copied(call, [(i,) for i in range(12)])) == list(range(12)))
"""
    assert in_a_new_process(code) == "True"


@LINUX
def test_what_a_copy_imports_is_not_imported_here() -> None:
    code = """
import sys
def call(name):
    __import__("wave")
    return name, "wave" in sys.modules
print(copies.elsewhere(call, "a"), "wave" in sys.modules)
"""
    assert in_a_new_process(code) == "('a', True) False"


def test_a_process_with_threads_is_not_copied() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert copies.copies() == 1
        assert list(copies.copied(lambda i: (i, threading.get_ident()), [(0,), (1,)])) == [
            (0, threading.get_ident()),
            (1, threading.get_ident()),
        ]
    finally:
        done.set()
        thread.join()


def test_a_process_that_has_torch_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert copies.copies() == 1


@LINUX
def test_results_that_are_not_read_are_not_computed() -> None:
    code = """
seen = copies.copied(lambda i: open(f"{i}.made", "w").close(), [(i,) for i in range(500)])
import tempfile
os.chdir(tempfile.mkdtemp())
next(seen)
seen.close()
print(len(os.listdir(".")) < 100)
"""
    assert in_a_new_process(code) == "True"
