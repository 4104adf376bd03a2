"""How many cores this process may use, and whether others were started beside it."""

from __future__ import annotations

import os


def cores() -> int:
    """Return the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def started_together() -> bool:
    """Say whether `torchrun` started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def speaks() -> bool:
    """Say whether this process is the one of several that talks to the user."""
    return not started_together() or os.environ.get("RANK", "0") == "0"
