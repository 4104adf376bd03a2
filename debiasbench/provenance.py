"""Where and with what a run is made."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

from debiasbench.plugins import version

PACKAGES = ("debiasbench", "torch", "torchvision", "timm", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of Python and of every package that can move a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def git_commit() -> str | None:
    """Return the commit this package is checked out at; None if it is installed otherwise."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changes else "")


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
