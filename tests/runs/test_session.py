"""`Session` from Python: the defaults of the command line, and a bar where somebody watches."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from debiasbench import Session
from debiasbench.common import display
from debiasbench.common.progress import Progress
from debiasbench.specs.plugins import Plugins

TOY = {"dataset": "toy", "model": "mlp", "training": {"epochs": 1}}


def test_folders_and_device_default_to_those_of_the_command_line(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEBIASBENCH_DATA", raising=False)
    assert Session(plugins, device="cpu").data_root == Path("data")
    monkeypatch.setenv("DEBIASBENCH_DATA", "elsewhere")
    monkeypatch.setenv("DEBIASBENCH_DEVICE", "cpu")
    session = Session(plugins, results="kept")
    assert (session.data_root, session.store.folder) == (Path("elsewhere"), Path("kept"))
    assert session.execution.device.type == "cpu"
    assert Session(plugins, data_root="mine").data_root == Path("mine")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_shown_on_a_terminal_only(
    terminal: bool, plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, no_color=True, width=140)
    monkeypatch.setattr(display, "Console", lambda **_: console)
    with Session(plugins, results=tmp_path, data_root=tmp_path, device="cpu") as session:
        session.run(session.spec("erm", **TOY))
    assert ("erm on toy: train" in screen.getvalue()) is terminal


def test_progress_goes_to_the_object_that_is_given(plugins: Plugins, tmp_path: Path) -> None:
    class Epochs(Progress):
        def __init__(self) -> None:
            self.values: list[set[str]] = []

        def epoch(self, epoch: int, epochs: int, values: object) -> None:
            self.values.append(set(values))  # type: ignore[call-overload]

    watch = Epochs()
    with Session(
        plugins, results=tmp_path, data_root=tmp_path, device="cpu", progress=watch
    ) as session:
        session.run(session.spec("erm", **TOY))
    assert len(watch.values) == 1
    assert {"loss", "val_loss", "val_unbiased"} <= watch.values[0]
