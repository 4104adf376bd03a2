"""The public workflow of submissions: it runs no code of a request, and its script checks files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.submissions.folders import submission

ROOT = Path(__file__).parent.parent
WORKFLOWS = {p.name: p.read_text() for p in (ROOT / ".github" / "workflows").glob("*.yml")}
CHECK, COMMENT = WORKFLOWS["submission.yml"], WORKFLOWS["submission-comment.yml"]


def test_no_workflow_runs_a_request_with_the_rights_of_the_repository() -> None:
    for text in WORKFLOWS.values():
        assert "pull_request_target" not in text
        assert "secrets." not in text
    assert "contents: read" in CHECK
    assert "write" not in re.sub(r"#.*", "", CHECK)
    assert "checkout" not in re.sub(r"#.*", "", COMMENT)


def test_no_text_of_a_request_is_pasted_into_a_script() -> None:
    for text in (CHECK, COMMENT):
        allowed = {"github.workflow", "github.ref", "github.event.pull_request.base.sha"}
        assert set(re.findall(r"\$\{\{ *([\w.]+) *\}\}", text)) <= allowed


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_given_by_commit(name: str) -> None:
    for action in re.findall(r"uses: (\S+)", WORKFLOWS[name]):
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action


def git(folder: Path, *words: str) -> None:
    names = {
        f"GIT_{w}_{k}": v
        for w in ("AUTHOR", "COMMITTER")
        for k, v in (("NAME", "a"), ("EMAIL", "a@b"))
    }
    subprocess.run(
        ["git", "-C", str(folder), *words],
        check=True,
        capture_output=True,
        env={**os.environ, **names},
    )


def checked(tmp_path: Path) -> tuple[int, str]:
    """Commit everything in `request` after an empty commit, and run the script of the workflow."""
    request = tmp_path / "request"
    git(request, "init", "-q")
    git(request, "commit", "-q", "--allow-empty", "-m", "base")
    git(request, "add", "-A")
    git(request, "commit", "-q", "-m", "request")
    return reported(tmp_path)


def reported(tmp_path: Path) -> tuple[int, str]:
    """Run the script of the workflow on the last commit of `request`."""
    script = ROOT / ".ci" / "check_submissions.py"
    done = subprocess.run(
        [sys.executable, str(script), "request", "report"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.returncode, (tmp_path / "report" / "report.txt").read_text()


@pytest.mark.slow
def test_the_script_checks_the_submission_that_a_request_adds(tmp_path: Path) -> None:
    submission(tmp_path / "request")
    code, report = checked(tmp_path)
    assert code == 0, report
    assert "mine: 5 records in 1 row, 0 errors" in report


@pytest.mark.slow
def test_the_script_refuses_code_beside_a_submission(tmp_path: Path) -> None:
    place = submission(tmp_path / "request")
    (place / "records" / "setup.py").write_text("raise SystemExit('run')")
    (tmp_path / "request" / "conftest.py").write_text("raise SystemExit('run')")
    code, report = checked(tmp_path)
    assert code == 9
    assert "'conftest.py' is outside of submissions/NAME/" in report
    assert "it does not belong here" in report


def test_the_report_of_a_request_that_changes_more_than_a_submission_is_not_posted() -> None:
    assert "pulls.listFiles" in COMMENT
    before, after = COMMENT.split("if (trusted) {")
    assert "listWorkflowRunArtifacts" not in before
    assert "listWorkflowRunArtifacts" in after
    assert "one.previous_filename" in before


@pytest.mark.slow
def test_the_script_names_files_that_a_request_removes_or_renames(tmp_path: Path) -> None:
    place = submission(tmp_path / "request")
    request = tmp_path / "request"
    (request / "leaderboard.json").write_bytes(b"x" * 999)
    (request / "submissions" / "other").mkdir()
    (request / "submissions" / "other" / "submission.toml").write_text("x")
    (place / "records" / "gone.json").write_text("x")
    git(request, "init", "-q")
    git(request, "add", "-A")
    git(request, "commit", "-q", "-m", "published")
    (request / "leaderboard.json").rename(place / "records" / "leaderboard.json")
    (place / "records" / "gone.json").unlink()
    git(request, "add", "-A")
    git(request, "commit", "-q", "-m", "request")
    code, report = reported(tmp_path)
    assert code == 9
    assert "'leaderboard.json' is outside of submissions/NAME/" in report
    assert "'submissions/mine/records/gone.json' was removed" in report
