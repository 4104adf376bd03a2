"""Check that there is enough free disk space before anything is written."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def require_space(needed: int, folder: Path, label: str) -> None:
    """Raise `DataError` if fewer than `needed` bytes are free; `label` names what needs them."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{label} needs {_readable(needed)} in {folder}, but only {_readable(free)} are free. "
            "Free some space, or choose another folder with --data-root"
        )


def _readable(size: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size:,} bytes"
