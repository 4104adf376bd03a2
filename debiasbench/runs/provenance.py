"""The provenance of a run: package versions, a digest of the source code, and the commit."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import PluginError, UnknownNameError
from debiasbench.specs.parts import parts
from debiasbench.specs.plugins import version

if TYPE_CHECKING:
    from debiasbench.core.model import Model
    from debiasbench.records.record import Result
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec

PACKAGES = ("debiasbench", "torch", "torchvision", "timm", "numpy", "scikit-learn")


def versions(model: Model | None = None) -> dict[str, str]:
    """Return the versions of Python and of all packages that can change a result of a model."""
    names = (*PACKAGES, *(() if model is None else model.packages))
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def code(*parts: object) -> str:
    """Return the SHA-256 of the source files of debiasbench and of the packages of `parts`.

    `parts`: objects, such as a method; None is ignored. Versions are not enough, since code can
    change without a new version.
    """
    objects = [part for part in parts if part is not None]
    packages = {"debiasbench", *(type(part).__module__.split(".")[0] for part in objects)}
    return hashlib.sha256("".join(map(_code, sorted(packages))).encode()).hexdigest()


def plugin_code(plugins: Plugins, spec: Spec) -> dict[str, str]:
    """Return the SHA-256 of the source files of each part of a spec that is not builtin.

    Without parts that have no files, such as classes of an interactive session.
    """
    digests = {}
    for kind, (registry, choice) in parts(plugins, spec).items():
        entry = registry[choice.name]
        package = entry.load().__module__.partition(".")[0]
        module = sys.modules.get(package)
        has_files = getattr(module, "__file__", None) or getattr(module, "__path__", None)
        if not entry.origin.builtin and has_files:
            digests[kind] = _code(package)
    return digests


def changed(record: Result, plugins: Plugins) -> list[str]:
    """Return the plugins, such as "acme 1.0", whose code is not the one that made a record.

    Empty if that is not known: for records of older versions of debiasbench, and for plugins that
    are not installed now.
    """
    before = record.provenance.plugin_code
    try:
        now = plugin_code(plugins, record.spec) if before else {}
    except (UnknownNameError, PluginError):
        return []
    names = [record.provenance.plugins[k] for k in before if now.get(k, before[k]) != before[k]]
    return list(dict.fromkeys(names))


@functools.cache
def _code(package: str) -> str:
    """Return the SHA-256 of the source files of a package or of a single-file module."""
    sources = _sources(package)
    if not sources:
        return str(uuid.uuid4())  # code of an interactive session has no file to compare
    sha = hashlib.sha256(package.encode())
    for folder, file in sources:
        sha.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return sha.hexdigest()


def _sources(package: str) -> list[tuple[Path, Path]]:
    """Return the source files of a package or module, as pairs of its folder and the file."""
    module = sys.modules.get(package)
    # a package without __init__.py has no file, but one folder or several
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    found = [(folder, file) for folder in folders for file in sorted(folder.rglob("*.py"))]
    single = getattr(module, "__file__", None)
    if single is not None and not folders:
        found = [(Path(single).parent, Path(single))]
    # an editor may keep links to nothing beside the files that it edits
    return [(folder, file) for folder, file in found if file.is_file()]


def git_commit() -> str | None:
    """Return the commit of the package's git checkout, or None if it is not in one."""
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
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return process.stdout.strip()
