"""Pull workers: each run is done once, whoever begins, stops, crashes or vanishes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from debiasbench.common.locks import locked
from debiasbench.common.signals import Stop
from debiasbench.records.store import sha256
from debiasbench.runs import pull
from debiasbench.runs.crew import End
from debiasbench.runs.job_folder import FINAL, JobFolder, Line, Outcomes, Told
from debiasbench.runs.jobs import Jobs
from debiasbench.runs.pull import Puller
from debiasbench.runs.session_options import SessionOptions
from debiasbench.runs.sweep import Attempt
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests.records.training import trained

Plays = Callable[[Sequence[str]], list[Attempt] | End | None]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "LOOK", 0.001)
    monkeypatch.setattr(pull, "AGAIN", 0.001)


def some_jobs(folder: Path, number: int = 6, **options: Any) -> Jobs:
    plugins = Plugins(installed=False)
    specs = {
        f"seed={seed}": make_spec(plugins, method="erm", dataset="digits", model="mlp", seed=seed)
        for seed in range(number)
    }
    return Jobs(specs, SessionOptions(folder / "data", folder / "results"), **options)


class Player:
    """A process of a script: `plays(titles)` returns outcomes, how it ends, or None."""

    def __init__(self, plays: Plays) -> None:
        self.plays = plays
        self.told: list[Any] = [None]
        self.end: End | None = None
        self.stopped = False

    def order(self, titles: Sequence[str] | None) -> None:
        if titles is None:
            self.end = self.end or End(0, "its process ended")
            return
        played = self.plays(titles)
        if isinstance(played, End):
            self.end = played
        elif played is not None:
            self.told += [
                [title, attempt.as_plain()] for title, attempt in zip(titles, played, strict=True)
            ]

    def reports(self) -> list[Any]:
        told, self.told = self.told, []
        return told

    def ended(self) -> End | None:
        return self.end

    def stop(self) -> None:
        self.stopped = True
        self.end = End(75, "its process ended with exit code 75")

    def kill(self) -> None:
        self.end = End(-9, "its process was killed by signal 9")

    def close(self) -> None:
        pass


class Worker:
    """A pull worker whose processes play a script."""

    def __init__(
        self, jobs: Jobs, folder: JobFolder, plays: Plays, number: int = 0, restart: int = 0
    ) -> None:
        self.given: list[list[str]] = []
        self.outcomes: dict[str, Attempt] = {}
        self.hired = 0
        self.stop = Stop()

        def hire(_: int) -> Player:
            self.hired += 1
            return Player(self._noting(plays))

        self._puller = Puller(
            jobs,
            folder,
            number,
            hire,
            lambda _: time.sleep(0.0005),
            self.outcomes.__setitem__,
            self.stop,
            restart=restart,
        )

    def _noting(self, plays: Plays) -> Plays:
        def noting(titles: Sequence[str]) -> list[Attempt] | End | None:
            self.given.append(list(titles))
            return plays(titles)

        return noting

    def run(self) -> int:
        return self._puller.run()


def trains(titles: Sequence[str]) -> list[Attempt]:
    return [Attempt("trained", Path(f"{title}.json")) for title in titles]


def finals(folder: JobFolder) -> list[tuple[str, str]]:
    return [(line.title, line.state) for line in Told(folder).read() if line.state in FINAL]


def test_workers_do_each_run_once_and_begin_at_different_places(tmp_path: Path) -> None:
    jobs = some_jobs(tmp_path, 24, workers=3)
    folder = JobFolder(tmp_path / "jobs")
    workers = [Worker(jobs, folder, trains, number) for number in range(3)]
    codes: list[int] = []
    threads = [threading.Thread(target=lambda w=w: codes.append(w.run())) for w in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert codes == [0, 0, 0]
    assert sorted(finals(folder)) == sorted((title, "trained") for title in jobs.specs)
    given = [title for worker in workers for runs in worker.given for title in runs]
    assert sorted(given) == sorted(jobs.specs)
    firsts = [worker.given[0][0] for worker in workers if worker.given]
    assert firsts == [f"seed={8 * n}" for n, worker in enumerate(workers) if worker.given]


def test_similar_runs_are_trained_together(tmp_path: Path) -> None:
    jobs = some_jobs(tmp_path, 5, together=2)
    other = make_spec(Plugins(installed=False), method="erm", dataset="digits", model="cnn")
    jobs = replace(jobs, specs={"other": other, **jobs.specs})
    worker = Worker(jobs, JobFolder(tmp_path / "jobs"), trains)
    assert worker.run() == 0
    assert worker.given == [
        ["other"],
        ["seed=0", "seed=1"],
        ["seed=2", "seed=3"],
        ["seed=4"],
    ]
    assert worker.hired == 1


def test_a_run_that_takes_its_process_down_three_times_fails_alone(tmp_path: Path) -> None:
    jobs = some_jobs(tmp_path, 4, together=2)

    def plays(titles: Sequence[str]) -> list[Attempt] | End | None:
        bad = "seed=1" in titles
        return End(-11, "its process was killed by signal 11") if bad else trains(titles)

    folder = JobFolder(tmp_path / "jobs")
    worker = Worker(jobs, folder, plays)
    assert worker.run() == 0
    assert worker.given.count(["seed=1"]) == 2  # after the first time, without seed=0
    assert worker.outcomes["seed=1"] == Attempt(
        "failed",
        problem="its process was killed by signal 11 before the record was written, 3 times",
        exit_code=1,
    )
    assert {title for title, state in finals(folder) if state == "trained"} == {
        "seed=0",
        "seed=2",
        "seed=3",
    }


def test_a_failure_is_told_once_and_not_tried_by_other_workers(tmp_path: Path) -> None:
    jobs = some_jobs(tmp_path, 2)
    folder = JobFolder(tmp_path / "jobs")
    failed = Attempt("failed", problem="the loss is NaN", exit_code=6)
    assert Worker(jobs, folder, lambda titles: [failed for _ in titles]).run() == 0
    second = Worker(jobs, folder, trains, 1)
    assert second.run() == 0
    assert second.given == []
    assert second.hired == 0
    told = Told(folder)
    told.read()
    assert told.final["seed=0"].attempt(tmp_path) == failed


def test_after_a_failure_no_worker_begins_a_run_if_asked(tmp_path: Path) -> None:
    jobs = some_jobs(tmp_path, 3, keep_going=False)
    folder = JobFolder(tmp_path / "jobs")
    failed = Attempt("failed", problem="no", exit_code=6)
    first = Worker(jobs, folder, lambda titles: [failed for _ in titles])
    assert first.run() == 0
    assert first.given == [["seed=0"]]
    second = Worker(jobs, folder, trains, 1)
    assert second.run() == 0
    assert second.given == []


def test_a_run_that_is_trained_elsewhere_is_tried_again_until_it_is_free(tmp_path: Path) -> None:
    times = 0

    def plays(titles: Sequence[str]) -> list[Attempt] | End | None:
        nonlocal times
        times += titles == ["seed=0"]
        return [Attempt("elsewhere")] if titles == ["seed=0"] and times < 6 else trains(titles)

    worker = Worker(some_jobs(tmp_path, 2), JobFolder(tmp_path / "jobs"), plays)
    assert worker.run() == 0
    assert times == 6  # more often than a run may take its process down
    assert {title: a.state for title, a in worker.outcomes.items()} == {
        "seed=0": "trained",
        "seed=1": "trained",
    }


def test_a_worker_waits_for_runs_of_others_and_takes_over_what_they_leave(tmp_path: Path) -> None:
    jobs = some_jobs(tmp_path, 2)
    folder = JobFolder(tmp_path / "jobs")
    other = Outcomes(folder, 5, 0)
    other.tell(Line("seed=0", "begun"))
    worker = Worker(jobs, folder, trains)
    thread = threading.Thread(target=worker.run)
    name = pull.lock_name("seed=0")
    with locked(folder.path, name):
        thread.start()
        time.sleep(0.2)
        assert worker.given == [["seed=1"]]
        assert thread.is_alive()
    thread.join(60)  # the other one vanished
    assert worker.given == [["seed=1"], ["seed=0"]]
    other.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_record_is_an_outcome_unless_it_is_to_be_replaced(tmp_path: Path, replaced: bool) -> None:
    jobs = some_jobs(tmp_path, 2, overwrite="always")
    path = trained(tmp_path / "results", jobs.specs["seed=0"])
    if replaced:
        jobs = replace(jobs, replaces={"seed=0": sha256(path.read_bytes())})
    worker = Worker(jobs, JobFolder(tmp_path / "jobs"), trains)
    assert worker.run() == 0
    assert worker.given == ([["seed=0"]] if replaced else []) + [["seed=1"]]
    if not replaced:
        assert worker.outcomes["seed=0"] == Attempt("done", path)


def interrupted(titles: Sequence[str]) -> End:
    return End(75, "its process ended with exit code 75")


def test_a_stopped_worker_says_so_and_its_runs_are_begun_again(tmp_path: Path) -> None:
    jobs = some_jobs(tmp_path, 1)
    folder = JobFolder(tmp_path / "jobs")
    for _ in range(5):  # more often than a run may take its process down
        worker = Worker(jobs, folder, lambda _: None)
        thread = threading.Thread(target=worker.run)
        thread.start()
        while not worker.given:
            time.sleep(0.001)
        worker.stop.request()
        thread.join(60)
    states = [line.state for line in Told(folder).read()]
    assert states == 5 * ["begun", "interrupted"]
    last = Worker(jobs, folder, trains)
    assert last.run() == 0
    assert last.given == [["seed=0"]]


@pytest.mark.parametrize(("end", "code"), [(75, 75), (130, 130)])
def test_a_stopped_worker_says_whether_anything_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: int, code: int
) -> None:
    def stop(player: Player) -> None:
        player.end = End(end, f"its process ended with exit code {end}")

    monkeypatch.setattr(Player, "stop", stop)
    worker = Worker(some_jobs(tmp_path, 1), JobFolder(tmp_path / "jobs"), lambda _: None)
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(worker.run()))
    thread.start()
    while not worker.given:
        time.sleep(0.001)
    worker.stop.request()
    thread.join(60)
    assert found == [code]


def test_a_run_that_cannot_continue_counts_its_stops_as_losses(tmp_path: Path) -> None:
    jobs = some_jobs(tmp_path, 1, overwrite="always")
    worker = Worker(jobs, JobFolder(tmp_path / "jobs"), interrupted)
    assert worker.run() == 0
    assert worker.given == 3 * [["seed=0"]]
    assert "3 times" in worker.outcomes["seed=0"].problem


@pytest.mark.parametrize(("restart", "begun"), [(0, 0), (1, 1)])
def test_losses_count_unless_slurm_restarted_the_worker(
    tmp_path: Path, restart: int, begun: int
) -> None:
    folder = JobFolder(tmp_path / "jobs")
    lost = Outcomes(folder, 0, 0)
    for _ in range(3):
        lost.tell(Line("seed=0", "begun"))
    lost.close()
    jobs = some_jobs(tmp_path, 1)
    # one of three times was the last before the restart
    worker = Worker(jobs, folder, trains, restart=restart)
    assert worker.run() == 0
    assert len(worker.given) == begun
    assert worker.outcomes["seed=0"].state == ("trained" if begun else "failed")


@pytest.mark.parametrize("code", [3, 7])
def test_a_worker_ends_if_its_processes_cannot_start_or_store(tmp_path: Path, code: int) -> None:
    folder = JobFolder(tmp_path / "jobs")
    player = Player(lambda _: End(code, f"its process ended with exit code {code}"))
    if code == 3:
        player.told = []  # it was never ready

    puller = Puller(
        some_jobs(tmp_path, 2),
        folder,
        0,
        lambda _: player,
        lambda _: None,
        lambda *_: None,
        Stop(),
    )
    assert puller.run() == code
    assert [line.state for line in Told(folder).read()] == ["begun", "interrupted"]
    assert finals(folder) == []
