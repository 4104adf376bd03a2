"""The cores that this process may use, and its role among processes that `torchrun` started."""

from __future__ import annotations

import os


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def started_together() -> bool:
    """Return whether `torchrun` started this process together with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def speaks() -> bool:
    """Return whether this process prints messages; of several processes, only the first does."""
    return not started_together() or os.environ.get("RANK", "0") == "0"
