"""Installed trackers listen in every command that trains, and results are those without them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.records.reading import read_all
from tests import warm
from tests.runs import trackers
from tests.runs.test_tracking import timeless
from tests.runs.trackers import FILE, heard

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent

PLUGIN = """
from debiasbench import hookimpl

@hookimpl
def debiasbench_register_trackers(register):
    register("writing", "tests.runs.trackers:Writing")
    register("raising", "tests.runs.trackers:Raising")
"""
SUITE = """
name = "two"
description = "d"
source = "s"
[base]
dataset = "digits"
model = "mlp"
method = "erm"
"train.epochs" = 2
[grid]
seed = [0, 1, 2]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an installed plugin that has two trackers."""
    info = tmp_path / "site" / "listen-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: listen\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[debiasbench]\nlisten = listen_plugin\n")
    (info.parent / "listen_plugin.py").write_text(PLUGIN)
    return info.parent


def call(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, FILE: str(folder / "events")}
    del environment["DEBIASBENCH_PLUGINS"]
    done = warm.debiasbench(*words, folder=folder, environment=environment)
    assert done.returncode == 0, done.stderr
    return done


SWEEP = ["sweep", "two.toml", "--device", "cpu", "--quiet"]


@pytest.mark.parametrize("words", [["--jobs", "2"], ["--together", "2"]])
def test_trackers_hear_every_run_of_a_sweep_and_change_none(
    site: Path, tmp_path: Path, words: list[str], debiasbench: Callable[..., Result]
) -> None:
    (tmp_path / "two.toml").write_text(SUITE)
    heard_by = call(site, tmp_path, *SWEEP, *words, "--results", "with")
    assert debiasbench(*SWEEP, "--results", "without").exit_code == 0
    told = {record.id: record for _, record in read_all([tmp_path / "with"])[0]}
    alone = {record.id: record for _, record in read_all([tmp_path / "without"])[0]}
    assert told.keys() == alone.keys()
    assert len(told) == 3
    for key, record in told.items():
        assert record.predictions == alone[key].predictions
        if "--together" not in words:
            assert timeless(record) == timeless(alone[key])
    events = heard(tmp_path / "events")
    ended = [e for e in events if e["event"] == "run_ended"]
    assert {e["record"]["id"] for e in ended} == told.keys()
    processes = 2 if "--jobs" in words else 1
    assert len({e["process"] for e in events}) <= processes
    assert [e["event"] for e in events].count("close") == len({e["process"] for e in events})
    raised = heard_by.stderr.count("tracker 'raising' of listen 1.0 raised SystemExit: 3")
    assert raised == [e["event"] for e in events].count("close")


def test_run_and_list_and_show_know_trackers(site: Path, tmp_path: Path) -> None:
    call(site, tmp_path, "run", "--method", "erm", "--epochs", "1", "--device", "cpu", "--quiet")
    assert [e["event"] for e in heard(tmp_path / "events")][-2:] == ["run_ended", "close"]
    listed = call(site, tmp_path, "list", "trackers").stdout
    assert "writing" in listed
    assert "listen 1.0" in listed
    assert "Writes a line for each event." in listed
    shown = call(site, tmp_path, "show", "writing").stdout
    assert shown.startswith("tracker writing  (listen 1.0)")
    assert "ption" not in shown


def test_without_trackers_the_list_has_none(debiasbench: Callable[..., Result]) -> None:
    assert "trackers" not in debiasbench("list").stdout
    assert debiasbench("list", "trackers").exit_code == 0
    assert trackers.Tracker.wanted()
