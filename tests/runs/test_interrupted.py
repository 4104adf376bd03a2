"""A signal at any moment of a run is followed, and is never taken for an error of the method."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from debiasbench import Method, option
from debiasbench.cli import main
from debiasbench.specs.plugins import Plugins
from debiasbench.training import stage_store
from tests.conftest import offering
from tests.suites import BASE, SEEDS, records, write

Cli = Callable[..., Result]

reached: list[str] = []


def signalled() -> None:
    """Send a signal to this process, as a cluster would; return only if it raises nothing here."""
    os.kill(os.getpid(), signal.SIGTERM)
    reached.append("after the signal")


@dataclass(frozen=True)
class Signalled(Method):
    """Trains two stages; a signal arrives at a chosen moment while a file exists."""

    moment: str = option("first", "when the signal arrives")

    def fit(self, lab: Any) -> Any:
        def may_signal(moment: str) -> None:
            if self.moment == moment and Path("signal").exists() and lab.seed != 1:
                signalled()

        may_signal("first")
        lab.train(lab.model(), name="first")
        may_signal("second")
        second = lab.train(lab.model(), name="second")
        may_signal("evaluation")
        if self.moment == "error" and Path("signal").exists():
            signalled()
            raise RuntimeError("a process of a library was killed")
        return second


EXTRA = (offering(signalled=Signalled),)


@pytest.mark.parametrize(
    ("moment", "code", "message", "stored"),
    [
        ("first", 130, "Interrupted before stage 'first': nothing new was stored", 0),
        ("second", 75, "Interrupted before stage 'second': run the same command again", 1),
        ("evaluation", 75, "Interrupted while predicting: run the same command again", 2),
        ("error", 75, "Interrupted: run the same command again", 2),
    ],
)
def test_a_signal_ends_a_run_at_the_next_moment_at_which_it_can_stop(
    debiasbench: Cli, moment: str, code: int, message: str, stored: int
) -> None:
    words = ("run", "--dataset", "toy", "--method", "signalled", "--set", f"moment={moment}")
    Path("signal").touch()
    reached.clear()
    first = debiasbench(*words, extra=EXTRA)
    assert first.exit_code == code, first.stderr
    assert message in first.stderr
    assert reached == ["after the signal"]
    assert records() == []
    assert (
        len(list((Path("results") / stage_store.FOLDER).glob(f"*/{stage_store.FINISHED}")))
        == stored
    )
    Path("signal").unlink()
    assert debiasbench(*words, extra=EXTRA).exit_code == 0
    assert len(records()) == 1


@pytest.mark.parametrize("moment", ["first", "evaluation", "error"])
def test_a_sweep_reports_no_run_as_failed_after_a_signal(debiasbench: Cli, moment: str) -> None:
    file = write(BASE.replace("erm", "signalled") + f'moment = "{moment}"\n' + SEEDS)
    Path("signal").touch()
    result = debiasbench("sweep", file, "--quiet", extra=EXTRA)
    if moment == "error":
        expected = "3 runs: 0 trained, 0 already done, 3 left"
    else:
        expected = "3 runs: 1 trained, 0 already done, 2 left"
    assert result.exit_code == 75  # a record or a stage is stored
    assert result.stderr == (
        "Interrupted. The records of finished runs are stored, and the same command continues the "
        f"others. {expected}\n"
    )
    Path("signal").unlink()
    again = debiasbench("sweep", file, extra=EXTRA)
    assert (again.exit_code, len(records())) == (0, 3)


def test_a_forecast_ends_at_a_signal(debiasbench: Cli) -> None:
    file = write(BASE.replace("erm", "signalled") + 'moment = "first"\n')
    Path("signal").touch()
    result = debiasbench("suite", "show", file, extra=EXTRA)
    assert result.exit_code == 130, result.output
    assert result.stderr.splitlines()[-1] == "Error: Interrupted: nothing new was stored"


def test_ctrl_c_while_a_plugin_is_imported_is_not_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def importing() -> Plugins:
        os.kill(os.getpid(), signal.SIGINT)
        return Plugins()

    monkeypatch.setattr("debiasbench.specs.plugins.Plugins", importing)
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 130
    assert result.stderr.endswith("Error: Interrupted: nothing new was stored\n")
