"""Check that there is enough free disk space before anything is written."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError
from debiasbench.common.wording import readable_size

if TYPE_CHECKING:
    from pathlib import Path


def require_space(needed: int, folder: Path, label: str) -> None:
    """Raise `DataError` if fewer than `needed` bytes are free; `label` names what needs them."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{label} needs {readable_size(needed)} in {folder}, but only {readable_size(free)} "
            "are free. Free some space, or choose another folder with --data-root"
        )
