"""The folder of jobs: found again by the same runs, and read whatever its writers left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from debiasbench.common.errors import StoreError
from debiasbench.runs.job_folder import JobFolder, Line, Outcomes, Told
from debiasbench.runs.sweep import Attempt
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec


def test_the_same_runs_have_one_folder_and_others_another(tmp_path: Path) -> None:
    plugins = Plugins(installed=False)
    one = {"a": make_spec(plugins, method="erm", dataset="digits", seed=0)}
    other = {"a": replace(one["a"], seed=1)}
    found = [JobFolder.of(tmp_path / place, specs) for place in "ab" for specs in (one, one, other)]
    assert len({folder.path for folder in found}) == 4
    assert len({folder.name for folder in found}) == 4
    assert found[0].path == found[1].path
    assert found[0].path.parent == tmp_path / "a" / ".jobs"


def told(folder: JobFolder) -> list[tuple[str, str]]:
    return [(line.title, line.state) for line in Told(folder).read()]


def test_what_one_worker_tells_all_others_read_once(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "jobs")
    first, second = Outcomes(folder, 0, 0), Outcomes(folder, 1, 0)
    reader = Told(folder)
    first.tell(Line("a", "begun"))
    assert [line.state for line in reader.read()] == ["begun"]
    problem = 'not "finite"\nat all'
    second.tell(Line.of("b", Attempt("failed", Path("x/b.json"), problem, 6), tmp_path))
    (line,) = reader.read()
    assert line.worker == 1
    assert line.attempt(tmp_path) == Attempt("failed", tmp_path / "b.json", problem, 6)
    assert reader.read() == []
    assert reader.failed
    assert list(reader.final) == ["b"]
    for each in (first, second):
        each.close()


def test_a_line_is_read_when_it_is_complete(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "jobs")
    writer, reader = Outcomes(folder, 0, 0), Told(folder)
    reader.read()
    line = json.dumps({"title": "a", "state": "trained"}).encode() + b"\n"
    with folder.outcomes(0).open("ab", buffering=0) as file:
        file.write(line[:10])
        assert reader.read() == []
        file.write(line[10:])
        assert [found.title for found in reader.read()] == ["a"]
    writer.close()


@pytest.mark.parametrize(
    "bad",
    [
        b'{"title": "a", "sta',  # its writer was killed
        b"\0\0\0\0\n",  # as some network file systems show a file that grows
        b'{"title": "a", "state": "won"}\n',
        b'{"title": 3, "state": "begun"}\n',
        b'{"title": "a", "state": "begun", "rm": "-rf"}\n',
        b'{"title": "a", "state": "failed", "exit_code": "6"}\n',
        b"[]\n",
    ],
)
def test_what_is_no_line_is_left_out_and_what_follows_is_read(tmp_path: Path, bad: bytes) -> None:
    folder = JobFolder(tmp_path / "jobs")
    folder.path.mkdir()
    folder.outcomes(0).write_bytes(bad)
    again = Outcomes(folder, 0, 0)
    again.tell(Line("b", "begun"))
    again.close()
    assert told(folder) == [("b", "begun")]


@pytest.mark.parametrize("file", ["../../etc/passwd", "/etc/passwd", "search/../../passwd"])
def test_a_record_of_a_line_lies_in_the_results_folder(tmp_path: Path, file: str) -> None:
    assert Line("a", "trained", file=file).attempt(tmp_path).path == tmp_path / "passwd"


def test_a_trial_of_a_line_lies_where_it_was_stored(tmp_path: Path) -> None:
    stored = Attempt("trained", tmp_path / "search" / "a.trial.json")
    line = Line.of("a", stored, tmp_path)
    assert line.file == "search/a.trial.json"
    assert line.attempt(Path("elsewhere")).path == Path("elsewhere/search/a.trial.json")


def test_earlier_outcomes_are_cleared_and_their_records_stay_known(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "jobs")
    worker = Outcomes(folder, 0, 0)
    worker.tell(Line.of("a", Attempt("trained", Path("a-bf16.json")), tmp_path))
    folder.clear()
    worker.tell(Line("b", "begun"))  # by one that Slurm has lost
    assert told(folder) == []
    folder.clear()
    assert folder.records() == {"a": "a-bf16.json"}
    worker.close()


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("")
    with pytest.raises(StoreError, match=r"Cannot write .*jobs"):
        Outcomes(JobFolder(tmp_path / "jobs"), 0, 0)
