"""Signals set a flag that code checks where it can stop; only a second Ctrl-C does not wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from debiasbench.common import signals
from debiasbench.common.errors import BusyError, DataError, Interrupted, StoreError
from debiasbench.common.signals import SIGNALS, Stop, check, stopped_by_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_only_sets_a_flag(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stopped_by_signals() as stop:
        os.kill(os.getpid(), number)  # raises nothing here
        assert stop.requested
        with pytest.raises(Interrupted, match=r"^Interrupted: nothing new was stored$"):
            check()
    check()  # outside, nothing was requested
    assert signal.getsignal(number) is before


def test_the_exit_code_says_whether_there_is_something_to_continue() -> None:
    stop = Stop()
    stop.request()
    with pytest.raises(Interrupted) as first:
        stop.check()
    stop.resumable = True
    with pytest.raises(Interrupted, match="here: run the same command again") as second:
        stop.check(" here")
    assert (first.value.exit_code, second.value.exit_code) == (130, 75)


def test_a_running_stage_holds_the_check_of_what_it_calls() -> None:
    stop = Stop()
    stop.request()
    with stop.held():
        stop.check()
    with pytest.raises(Interrupted):
        stop.check()


def test_inner_code_follows_the_request_of_the_command() -> None:
    with stopped_by_signals() as outer, stopped_by_signals() as inner:
        assert inner is outer


def test_an_error_that_follows_a_signal_is_its_effect() -> None:
    stop = Stop()
    with pytest.raises(DataError), stop.explaining():
        raise DataError("nobody asked to stop")
    stop.request()
    for error in (DataError("a process that decodes images was killed"), BusyError("x"), OSError()):
        with pytest.raises(Interrupted) as raised, stop.explaining():
            raise error
        assert raised.value.__cause__ is error
    with pytest.raises(StoreError), stop.explaining():  # the checkpoint could not be written
        raise StoreError("disk full")


def test_a_second_ctrl_c_does_not_wait(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    called: list[str] = []
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with stopped_by_signals() as stop:
        stop.at_once.append(lambda: called.append("at once"))
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # the same press, repeated by a launcher
        assert called == []
        monkeypatch.setattr(signals, "ONE_PRESS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert called == ["at once"]
    assert capfd.readouterr().err == (
        "Interrupted: stopping after the current step. Press Ctrl-C again to stop at once\n"
        "Interrupted again: stopping at once\n"
    )


HANGS = """
import os, signal
from debiasbench.common import signals

signals.ONE_PRESS = 0.0
with signals.stopped_by_signals(ending=True):
    while True:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            pass
"""


FORKS = """
import os, signal, time
from debiasbench.common.signals import stopped_by_signals

with stopped_by_signals():
    child = os.fork()
    while child == 0:
        time.sleep(1)
    os.kill(child, signal.SIGINT)
    time.sleep(0.2)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGTERM)
    assert os.waitpid(child, 0)[1] == signal.SIGTERM
"""


@pytest.mark.slow
def test_a_fork_can_be_terminated_and_leaves_ctrl_c_to_its_parent() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_a_command_that_catches_everything_ends_at_the_second_ctrl_c() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, check=False)
    assert done.returncode == -signal.SIGINT
