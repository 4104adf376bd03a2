"""Check every submission that a pull request adds or changes; for the workflow "submission".

    python .ci/check_submissions.py REQUEST REPORT

REQUEST: a checkout of the pull request merged into its base, with two commits. Only its files are
read, nothing of it is run. REPORT: folder for report.txt. The exit code is 9 if a check fails.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MOST_TEXT = 50_000  # characters of the report of a submission


def main(request: Path, report: Path) -> int:
    """Check the submissions; return the exit code."""
    names, others = changed(request)
    removed = _diff(request, "--diff-filter=D")
    lines, failed = [], bool(others)
    for path in others[:50]:
        lines.append(f"{path!r} is outside of submissions/NAME/: change only one such folder")
    if len(names) > 1:
        failed = True
        lines.append(f"{len(names)} submissions in one pull request: make one for each")
    for name in names[:5]:
        place = request / "submissions" / name
        if gone := [path for path in removed if path.startswith(f"submissions/{name}/")]:
            failed = True
            lines.append(f"{gone[0]!r} was removed. To withdraw records, write to withdrawn.toml")
        if not place.exists():
            continue
        command = [sys.executable, "-m", "debiasbench", "submit", "check", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        failed = failed or done.returncode != 0
        lines.append(done.stdout[:MOST_TEXT])
        if done.returncode not in {0, 9}:
            lines.append(done.stderr[:MOST_TEXT])
    if not names:
        lines.append("No submission changed")
    report.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines)
    (report / "report.txt").write_text(text, "utf-8")
    print(text)
    return 9 if failed else 0


def changed(request: Path) -> tuple[list[str], list[str]]:
    """Return the names of the submissions that changed, and changed files elsewhere."""
    done = _diff(request)
    names: dict[str, None] = {}
    others = []
    for path in done:
        parts = path.split("/")
        if parts[0] == "submissions" and len(parts) > 2:
            names[parts[1]] = None
        else:
            others.append(path)
    return list(names), others


def _diff(request: Path, *options: str) -> list[str]:
    """Return the changed files; one that was renamed is one that was removed and one added."""
    command = ["git", "-C", str(request), "diff", "--name-only", "--no-renames", "-z"]
    done = subprocess.run([*command, *options, "HEAD^1", "HEAD"], capture_output=True, check=True)
    return [path for path in done.stdout.decode(errors="replace").split("\0") if path]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), Path(sys.argv[2])))
