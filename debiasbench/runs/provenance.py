"""The versions, the source code and the commit that a run is made with."""

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
    """Return the versions of Python and of every package that can change a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def code(*parts: object) -> str:
    """Return the SHA-256 of the source files of debiasbench and of the packages of `parts`.

    `parts` are objects, such as a method; None is ignored. Versions are not enough: an author
    may have changed the code since.
    """
    given = [part for part in parts if part is not None]
    tops = {"debiasbench", *(type(part).__module__.split(".")[0] for part in given)}
    return hashlib.sha256("".join(map(_code, sorted(tops))).encode()).hexdigest()


@functools.cache
def _code(top: str) -> str:
    """Return the SHA-256 of the source files of a package or of a single-file module."""
    name = getattr(sys.modules.get(top), "__file__", None)
    if name is None:
        return str(uuid.uuid4())  # code typed into an interpreter is never known to be the same
    file = Path(name)
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    sha = hashlib.sha256(top.encode())
    for source in files:
        sha.update(f"{source.relative_to(file.parent)}\n".encode() + source.read_bytes())
    return sha.hexdigest()


def git_commit() -> str | None:
    """Return the commit of this checkout, None if the package is not a git checkout."""
    root = Path(__file__).parent.parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changes else "")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
