"""A crew of workers: each run is handed out once, and a worker that dies loses no run silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from debiasbench.common.signals import Stop
from debiasbench.runs import workers
from debiasbench.runs.crew import Crew
from debiasbench.runs.sweep import Attempt
from debiasbench.runs.workers import Worker, wait_for

pytestmark = pytest.mark.slow  # starts processes, but none imports torch

WORKS = """
import os, sys
sys.path[:] = {path!r}
from debiasbench.common.signals import Stop
from debiasbench.runs.sweep import Attempt
from debiasbench.runs.workers import Orders

assert sys.argv[1:3] == ["work", "--pipes"] and sys.argv[4:] == ["--", "jobs.json"]
assert os.getpid() == os.getsid(0)  # a group of its own
orders = Orders(sys.argv[3], Stop())
for titles in orders:
    for title in titles:
        if title == "dies":
            os._exit(0)
        if title == "interrupted":
            sys.exit(75)
        failed = Attempt("failed", exit_code=6)
        orders.report(title, failed if title == "fails" else Attempt("trained"))
"""


def outcomes(
    monkeypatch: pytest.MonkeyPatch, start: str, titles: list[str], *, going: bool = True
) -> tuple[Crew[Worker], dict[str, tuple[str, int]]]:
    monkeypatch.setattr(workers, "START", start)
    found: dict[str, tuple[str, int]] = {}

    def report(title: str, attempt: Attempt) -> bool:
        assert title not in found
        found[title] = (attempt.state, attempt.exit_code)
        return going

    crew = Crew(lambda _: Worker(Path("jobs.json")), wait_for, report, Stop())
    crew.run([[title] for title in titles], processes=2)
    return crew, found


def test_each_run_is_attempted_once_also_after_a_worker_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    titles = ["dies", "a", "fails", "b\nä", "dies".upper(), "c"]
    crew, found = outcomes(monkeypatch, WORKS, titles)
    trained = dict.fromkeys(titles, ("trained", 0))
    assert found == {**trained, "dies": ("failed", 1), "fails": ("failed", 6)}
    assert crew.code == 0


def test_no_run_is_handed_out_after_the_first_failure_if_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, found = outcomes(monkeypatch, WORKS, ["fails", "fails too", "c", "d"], going=False)
    assert "d" not in found


def test_workers_that_do_not_start_are_not_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    crew, found = outcomes(monkeypatch, "raise SystemExit(0)", ["a", "b", "c"])
    assert (crew.code, found) == (1, {})


def test_a_worker_that_was_stopped_alone_leaves_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    crew, found = outcomes(monkeypatch, WORKS, ["interrupted", "a", "b"])
    assert found == {"a": ("trained", 0), "b": ("trained", 0)}
    assert crew.code == 75
