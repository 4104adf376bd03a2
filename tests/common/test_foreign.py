"""Code of plugins: prints, exits, threads, and the line that an error names."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from debiasbench.common.errors import Interrupted
from debiasbench.common.foreign import contained, explained, first_line, is_interrupt


def raised_by(code: str) -> BaseException:
    try:
        exec(code, {"__name__": "acme.method"})
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_prints_go_to_stderr_and_closing_stdout_closes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with contained("acme"):
        print("inside")
        sys.stdout.close()
    print("outside")
    sys.stderr.write("still open\n")
    assert capsys.readouterr() == ("outside\n", "inside\nstill open\n")


def test_the_end_of_the_process_is_an_exception_except_in_a_child() -> None:
    leave = os._exit
    with pytest.raises(SystemExit, match=r"os\._exit\(0\)"), contained("acme"):
        os._exit(0)
    assert os._exit is leave


def test_a_thread_that_keeps_the_process_alive_is_reported() -> None:
    done = threading.Event()
    said: list[str] = []
    with contained("acme 1.0", said.append):
        threads = [
            threading.Thread(target=done.wait, name="mine"),
            threading.Thread(target=done.wait, daemon=True),
        ]
        for thread in threads:
            thread.start()
    done.set()
    (message,) = said
    assert message.startswith("acme 1.0 left a thread running (mine)")


def test_changed_settings_are_a_warning_that_names_the_owner(tmp_path: Path) -> None:
    with (
        pytest.warns(UserWarning, match="acme 1.0 changed the current folder"),
        contained("acme 1.0"),
    ):
        os.chdir(tmp_path)
    assert Path.cwd() != tmp_path


def test_a_keyboard_interrupt_that_code_raises_is_not_one_of_the_user() -> None:
    assert not is_interrupt(raised_by("raise KeyboardInterrupt"))
    assert not is_interrupt(raised_by("raise KeyboardInterrupt('text')"))
    assert not is_interrupt(raised_by("raise SystemExit(0)"))
    assert not is_interrupt(raised_by("1 / 0"))


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.kill(os.getpid(), 2)\nfor i in range(10**9): pass",
        "import os, time; os.kill(os.getpid(), 2); time.sleep(10)",
        "import signal; signal.raise_signal(2)",
    ],
)
def test_a_ctrl_c_is_one_of_the_user(code: str) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert is_interrupt(raised_by(code))
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interruption_of_training_is_one_of_the_user() -> None:
    assert is_interrupt(Interrupted(resumable=True))


def test_an_error_names_the_innermost_line_of_the_plugin(tmp_path: Path) -> None:
    file = tmp_path / "method.py"
    file.write_text("import json\n\ndef fit():\n    return json.loads('{')\n")
    plugin = ModuleType("acme.method")
    exec(compile(file.read_text(), file, "exec"), vars(plugin))
    with pytest.raises(ValueError, match="Expecting") as info:
        plugin.fit()
    assert explained(info.value, "acme.method").endswith(f"({file}, line 4)")
    assert "json/decoder.py, line " in explained(info.value, "other")


def test_a_file_in_the_current_folder_is_named_without_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = compile("1 / 0", tmp_path / "my.py", "exec")
    with pytest.raises(ZeroDivisionError) as info:
        exec(code, {"__name__": "my"})
    assert explained(info.value, "my") == "ZeroDivisionError: division by zero (my.py, line 1)"


def test_a_message_is_one_printable_line() -> None:
    class UnreadableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("in str")

    assert first_line(ValueError("one\ntwo")) == "ValueError: one"
    assert first_line(ValueError("\x1b[31mred")) == "ValueError: ?[31mred"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert first_line(UnreadableError()) == "UnreadableError: its message cannot be read"
