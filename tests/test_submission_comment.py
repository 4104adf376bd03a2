"""The workflow that comments on a submission: Node runs its script with a fake GitHub."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest

NODE, UNZIP = shutil.which("node"), shutil.which("unzip")
WORKFLOW = Path(__file__).parent.parent / ".github" / "workflows" / "submission-comment.yml"
MARK = "<!-- debiasbench submission report -->"

pytestmark = [
    pytest.mark.skipif(NODE is None, reason="Node is not installed"),
    pytest.mark.skipif(UNZIP is None, reason="unzip is not installed"),
]

# what actions/github-script offers to a script; every answer is that of the file `scenario.json`
FAKE = """
const scenario = JSON.parse(require("node:fs").readFileSync("scenario.json", "utf8"));
const calls = [];
const answer = (name, data) => async (asked) => { calls.push({ name, asked }); return { data }; };
const rest = {
  pulls: {
    list: answer("pulls.list", scenario.requests),
    listFiles: answer("pulls.listFiles", scenario.files),
  },
  actions: {
    listWorkflowRunArtifacts: answer("artifacts", { artifacts: scenario.artifacts }),
    downloadArtifact: answer("download", Buffer.from(scenario.zip, "base64")),
  },
  issues: {
    listComments: answer("issues.listComments", scenario.comments),
    createComment: answer("createComment", {}),
    updateComment: answer("updateComment", {}),
  },
};
const github = { rest, paginate: async (method, asked) => (await method(asked)).data };
const context = { repo: { owner: "us", repo: "bench" }, payload: { workflow_run: scenario.run } };
const core = {
  notice: (text) => { calls.push({ name: "notice", asked: { text } }); },
  setFailed: (text) => { calls.push({ name: "setFailed", asked: { text } }); },
};
const script = require("node:fs").readFileSync("script.js", "utf8");
const Async = (async () => {}).constructor;
new Async("github", "context", "core", "require", script)(github, context, core, require)
  .then(() => console.log(JSON.stringify(calls)));
"""


def zipped(text: str, name: str = "report.txt") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return made.getvalue()


def commented(folder: Path, archive: bytes, **changes: Any) -> dict[str, dict[str, Any]]:
    """Run the script for a request of one submission; return what it asked of GitHub, by name."""
    text = WORKFLOW.read_text("utf-8")
    (folder / "script.js").write_text(textwrap.dedent(text.split("script: |\n")[1]), "utf-8")
    (folder / "fake.js").write_text(FAKE, "utf-8")
    scenario = {
        "run": {
            "id": 7,
            "head_sha": "abc",
            "head_branch": "mine",
            "head_repository": {"owner": {"login": "stranger"}},
        },
        "requests": [
            {"number": 4, "head": {"sha": "older"}},
            {"number": 5, "head": {"sha": "abc"}},
        ],
        "files": [{"filename": "submissions/mine/submission.toml"}],
        "artifacts": [{"id": 9, "size_in_bytes": len(archive)}],
        "comments": [],
        "zip": base64.b64encode(archive).decode(),
    }
    (folder / "scenario.json").write_text(json.dumps(scenario | changes), "utf-8")
    limits = dict(re.findall(r'(MOST_\w+): "(\d+)"', text))
    assert NODE is not None
    assert UNZIP is not None
    done = subprocess.run(
        [NODE, "fake.js"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env={**limits, "PATH": str(Path(UNZIP).parent)},
    )
    return {call["name"]: call["asked"] for call in json.loads(done.stdout)}


def test_the_report_becomes_a_comment_on_the_request_of_the_commit(tmp_path: Path) -> None:
    calls = commented(tmp_path, zipped("mine: verified\n"))
    assert calls["pulls.list"]["head"] == "stranger:mine"
    assert calls["artifacts"] == {
        "owner": "us",
        "repo": "bench",
        "run_id": 7,
        "name": "submission-report",
    }
    assert calls["createComment"]["issue_number"] == 5
    body = f"{MARK}\nChecks of commit abc:\n\n```text\nmine: verified\n\n```\n"
    assert calls["createComment"]["body"] == body
    assert "updateComment" not in calls


def test_a_second_report_replaces_the_first_and_no_comment_of_a_person(tmp_path: Path) -> None:
    comments = [
        {"id": 1, "user": {"type": "User"}, "body": f"{MARK} written by hand"},
        {"id": 2, "user": {"type": "Bot"}, "body": "of another workflow"},
        {"id": 3, "user": {"type": "Bot"}, "body": f"{MARK}\nold"},
    ]
    calls = commented(tmp_path, zipped("new"), comments=comments)
    assert calls["updateComment"]["comment_id"] == 3
    assert "new" in calls["updateComment"]["body"]
    assert "createComment" not in calls


def test_no_text_ends_the_block_that_it_is_in(tmp_path: Path) -> None:
    report = "```\n# a heading\n``````\n<img src=x onerror=alert(1)>"
    body = commented(tmp_path, zipped(report))["createComment"]["body"]
    head, block, tail = body.split("`" * 7)
    assert head.endswith("\n\n")
    assert block == f"text\n{report}\n"
    assert tail == "\n"


@pytest.mark.parametrize(
    "file",
    [
        {"filename": ".github/workflows/submission.yml"},
        {"filename": "submissions/mine/a", "previous_filename": "debiasbench/cli/__init__.py"},
        {"filename": "submissions"},
    ],
)
def test_a_request_that_changes_more_than_a_submission_has_no_report(
    tmp_path: Path, file: dict[str, str]
) -> None:
    files = [{"filename": "submissions/mine/submission.toml"}, file]
    calls = commented(tmp_path, zipped("verified"), files=files)
    assert "files outside of submissions/ changed: not checked" in calls["createComment"]["body"]
    assert "verified" not in calls["createComment"]["body"]
    assert "download" not in calls


def test_so_many_files_that_github_lists_only_a_part_are_not_checked(tmp_path: Path) -> None:
    files = [{"filename": f"submissions/mine/{i}"} for i in range(3000)]
    calls = commented(tmp_path, zipped("verified"), files=files)
    assert "not checked" in calls["createComment"]["body"]


@pytest.mark.parametrize(
    ("archive", "changes", "complaint"),
    [
        (zipped("x" * 300_000), {}, "too long, or is no archive"),
        (zipped("x", name="other.txt"), {}, "too long, or is no archive"),
        (b"no archive", {}, "too long, or is no archive"),
        (zipped("x"), {"artifacts": [{"id": 9, "size_in_bytes": 200_001}]}, "has 200001 bytes"),
    ],
)
def test_a_report_that_is_none_is_refused(
    tmp_path: Path, archive: bytes, changes: dict[str, Any], complaint: str
) -> None:
    calls = commented(tmp_path, archive, **changes)
    assert complaint in calls["setFailed"]["text"]
    assert not {"createComment", "updateComment"} & calls.keys()


def test_a_long_report_is_shortened_to_what_github_takes(tmp_path: Path) -> None:
    body = commented(tmp_path, zipped("x" * 100_000))["createComment"]["body"]
    assert "... (shortened)" in body
    assert len(body) < 65_536


@pytest.mark.parametrize(
    ("changes", "notice"),
    [
        ({"requests": [{"number": 4, "head": {"sha": "newer"}}]}, "no open pull request"),
        ({"artifacts": []}, "the run has no report"),
    ],
)
def test_without_a_request_or_a_report_nothing_is_posted(
    tmp_path: Path, changes: dict[str, Any], notice: str
) -> None:
    calls = commented(tmp_path, zipped("x"), **changes)
    assert notice in calls["notice"]["text"]
    assert not {"createComment", "updateComment"} & calls.keys()
