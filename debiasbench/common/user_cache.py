"""The folder of the user for files that are safe to delete."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "DEBIASBENCH_CACHE"


def user_cache() -> Path | None:
    """Return the folder, which may not exist yet; None if there is no place for it.

    `DEBIASBENCH_CACHE` sets it; 0 turns it off. Otherwise it is `debiasbench` in the
    cache folder of the user: `XDG_CACHE_HOME`, `~/Library/Caches` on macOS, or `~/.cache`.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return None if chosen == "0" else Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # noqa: PTH117 - the specification ignores relative ones
        return Path(base, "debiasbench")
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home
        return None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "debiasbench"
