"""Where and with what a run is made."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
import sys
import uuid
from pathlib import Path

from debiasbench.specs.plugins import version

PACKAGES = ("debiasbench", "torch", "torchvision", "timm", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of Python and of every package that can move a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def code(*parts: object) -> str:
    """Return a digest of this package's source files and of those that define `parts`.

    A version says nothing of what its author has changed since.
    """
    tops = {"debiasbench", *(type(part).__module__.split(".")[0] for part in parts)}
    return hashlib.sha256("".join(map(_code, sorted(tops))).encode()).hexdigest()


@functools.cache
def _code(top: str) -> str:
    """The digest of the source files of a package, or of a module that is one file."""
    where = getattr(sys.modules.get(top), "__file__", None)
    if where is None:
        return str(uuid.uuid4())  # typed into an interpreter: never the same twice
    file = Path(where)
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    sha = hashlib.sha256(top.encode())
    for source in files:
        sha.update(f"{source.relative_to(file.parent)}\n".encode() + source.read_bytes())
    return sha.hexdigest()


def git_commit() -> str | None:
    """Return the commit this package is checked out at; None if it is installed otherwise."""
    root = Path(__file__).parent.parent.parent
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
