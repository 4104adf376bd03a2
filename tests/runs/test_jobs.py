"""A file of jobs holds all that another process needs, and is read strictly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from debiasbench.common.errors import RecordError
from debiasbench.runs.jobs import Jobs, read_jobs
from debiasbench.runs.session_options import SessionOptions
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec


def jobs() -> Jobs:
    plugins = Plugins(installed=False)
    specs = {
        f"erm seed={seed}": make_spec(plugins, method="erm", dataset="digits", seed=seed)
        for seed in (1, 0)
    }
    return Jobs(specs, SessionOptions(Path("data"), device="cpu"), together=2, quiet=True)


def test_jobs_are_read_as_they_were_written_with_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = jobs()
    written.write(Path("jobs.json"))
    found = read_jobs(Path("jobs.json"))
    session = replace(written.session, data_root=tmp_path / "data", results=tmp_path / "results")
    assert found == replace(written, session=session, working_folder=tmp_path)
    assert list(found.specs) == ["erm seed=1", "erm seed=0"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 7}, "version 7, known is 1"),
        ({"overwrite": "some"}, "is no file of jobs: overwrite: "),
        ({"command": "rm"}, "is no file of jobs: command: unexpected keyword"),
    ],
)
def test_a_file_of_other_content_is_refused(
    change: dict[str, object], reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps({**json.loads(jobs().to_json()), **change}))
    with pytest.raises(RecordError, match=f"jobs.json .*{reason}"):
        read_jobs(file)
