"""Errors of the command line: one line on stderr and an exit code for each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench import hookimpl
from debiasbench.cli import EPILOG
from debiasbench.common import errors
from tests.cli.calls import RUN, only, records
from tests.conftest import Peek, PeekDeclared, offering
from tests.datasets.mnist import write_mnist
from tests.failing import Diverges, Raises

Cli = Callable[..., Result]


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("run", "--method", "rset", "--dataset", "toy"), 2, "Did you mean 'rest'?"),
        (("run", "--method", "erm", "--dataset", "tooy"), 2, "Did you mean 'toy'?"),
        ((*RUN, "--model", "mpl"), 2, "Did you mean 'mlp'?"),
        ((*RUN, "--set", "x=1"), 2, "method erm: no option 'x'"),
        ((*RUN, "--set", "train.lr=fast"), 2, "lr='fast': input should be a valid number"),
        ((*RUN, "--set", "dataset.ratio=1.5"), 2, "ratio='1.5': input should be less than"),
        ((*RUN[:-2], "--device", "nonsense"), 2, "--device auto for an available device"),
        ((*RUN[:-2], "--results", "file/results"), 7, "Choose another folder with --results"),
        (("run", "--method", "erm", "--dataset", "cmnist"), 4, "--data-root or DEBIASBENCH_DATA"),
        (("show", "upwieght"), 2, "Did you mean 'upweight'?"),
        ((*RUN, "--sparse", "rigel"), 2, "Unknown sparsifier 'rigel'. Did you mean 'rigl'?"),
        ((*RUN, "--sparse", "rigl:density=2"), 2, "density='2': input should be less than"),
        ((*RUN, "--sparse", "rigl:every=often"), 2, "sparsifier rigl: every='often'"),
        ((*RUN, "--sparse", "rigl:density=1e-6"), 2, "smallest feasible density"),
        ((*RUN, "--sparse", "set:distribution=erq"), 2, "Unknown distribution 'erq'"),
        (("leaderboard", "nowhere"), 9, "No results at nowhere"),
        (("leaderboard", "empty"), 9, "There is no record to compare"),
        (("leaderboard", "--check"), 9, "leaderboard/README.md cannot be read"),
    ],
)
def test_each_mistake_is_one_line_on_stderr_and_its_exit_code(
    words: tuple[str, ...], code: int, complaint: str, debiasbench: Cli
) -> None:
    Path("file").write_text("")
    Path("empty").mkdir()
    assert complaint in only(debiasbench(*words), code)
    assert records() == []


def test_the_help_lists_the_exit_code_of_every_error() -> None:
    listed = {int(line.split()[0]) for line in EPILOG.splitlines() if line.strip()[:1].isdigit()}
    kinds = [e for e in vars(errors).values() if isinstance(e, type)]
    codes = {e.exit_code for e in kinds if issubclass(e, errors.DebiasbenchError)}
    assert listed == codes | {0, errors.Interrupted.NOTHING_STORED}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("run",), "Missing option '--method', for example --method rest"),
        ((*RUN, "--set", "lr"), "write NAME=VALUE"),
        ((*RUN, "--set", "optimizer.lr=1"), "dataset.OPTION, model.OPTION, train.OPTION"),
        ((*RUN, "--seed", "-1"), "-1 is not in the range"),
        ((*RUN, "--spec", __file__), "cannot be combined with --method, --set"),
        (("list", "method"), "'method' is not one of"),
    ],
)
def test_words_that_do_not_fit_the_command_are_usage_errors(
    words: tuple[str, ...], complaint: str, debiasbench: Cli
) -> None:
    result = debiasbench(*words)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_a_truncated_data_file_is_named(debiasbench: Cli, tmp_path: Path) -> None:
    file = write_mnist(tmp_path / "data") / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:5000])
    line = only(debiasbench("run", "--method", "erm", "--dataset", "cmnist"), 4)
    assert "train-images-idx3-ubyte" in line
    assert "download them again" in line


def test_an_undeclared_label_ends_with_its_own_exit_code(debiasbench: Cli) -> None:
    words = ("run", "--method", "peek", "--dataset", "toy")
    line = only(debiasbench(*words, extra=(offering(peek=Peek),)), 5)
    assert "method 'peek' of acme 1.0: The method reads batch.group without declaring it" in line
    assert 'Supervision(train="groups")' in line
    assert debiasbench(*words, extra=(offering(peek=PeekDeclared),)).exit_code == 0


def test_a_loss_that_becomes_nan_is_recorded_and_ends_with_its_exit_code(debiasbench: Cli) -> None:
    words = ("run", "--method", "diverges", "--dataset", "toy")
    result = debiasbench(*words, extra=(offering(diverges=Diverges),))
    line = only(result, 6)
    assert "The loss of stage 'second' became NaN or infinite at step 2 (last finite loss " in line
    (path,) = records()
    assert f"Record: {path}" in result.stdout
    assert json.loads(path.read_text())["status"] == "failed"


def test_a_bug_in_a_plugin_names_the_plugin_and_debug_shows_the_traceback(
    debiasbench: Cli,
) -> None:
    words = ("run", "--method", "raises", "--dataset", "toy")
    extra = (offering(raises=Raises),)
    line = only(debiasbench(*words, extra=extra), 3)
    assert "method 'raises' of acme 1.0 raised IndexError: off by one (" in line
    assert re.search(r"failing\.py, line \d+\)\. --debug shows the traceback", line)
    result = debiasbench(*words, "--debug", extra=extra)
    assert result.exit_code != 0
    assert isinstance(result.exception.__cause__, IndexError)  # type: ignore[union-attr]


@pytest.fixture
def run_raises(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let running any spec raise an error."""

    def replace_run(error: BaseException) -> None:
        def broken(*_args: object, **_more: object) -> None:
            raise error

        monkeypatch.setattr("debiasbench.runs.session.Session.run", broken)

    return replace_run


def test_an_unforeseen_error_is_one_line_too(
    debiasbench: Cli, run_raises: Callable[[BaseException], None]
) -> None:
    run_raises(RuntimeError("something\nbroke"))
    line = only(debiasbench(*RUN), 1)
    assert line == "RuntimeError: something broke (--debug shows the traceback)"


def test_an_interrupt_records_nothing_and_says_so(
    debiasbench: Cli, run_raises: Callable[[BaseException], None]
) -> None:
    run_raises(KeyboardInterrupt())
    result = debiasbench(*RUN)
    assert (result.exit_code, result.stderr) == (130, "Interrupted: nothing was stored\n")


def test_a_broken_plugin_is_a_warning_and_the_rest_works(debiasbench: Cli) -> None:
    class Broken:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            raise ImportError("no module named acme_core")

    result = debiasbench("list", "methods", extra=(Broken(),))
    assert result.exit_code == 0
    assert re.fullmatch(
        r"Warning: plugin 'acme 1\.0' of acme 1\.0 did not load: "
        r"ImportError: no module named acme_core \(.*test_cli\.py, line \d+\)\n",
        result.stderr,
    )
    assert "rest" in result.stdout
    debug = debiasbench("list", "methods", "--debug", extra=(Broken(),))
    assert "Traceback" in debug.stderr
