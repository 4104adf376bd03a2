"""The cores of this process, its command, and its role among those that `torchrun` started."""

from __future__ import annotations

import os
import sys

from debiasbench.common.errors import OptionError
from debiasbench.common.wording import shown


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def interpreter() -> list[str]:
    """Return the command of this interpreter, with the options that decide what it imports."""
    flags = {"-I": sys.flags.isolated, "-E": sys.flags.ignore_environment}
    flags |= {"-s": sys.flags.no_user_site, "-P": True}
    warnings = [f"-W{option}" for option in sys.warnoptions]
    return [sys.executable, *(flag for flag, is_set in flags.items() if is_set), *warnings]


def started_together() -> bool:
    """Return whether `torchrun` started this process together with others.

    Raises `OptionError` for environment variables that `torchrun` cannot have set.
    """
    size = _variable("WORLD_SIZE", 1, "1")
    if size > 1:
        for name, rank in (("RANK", _variable("RANK", 0)), ("LOCAL_RANK", local_rank())):
            if rank >= size:
                raise OptionError(
                    f"The environment variable {name} is {rank}, but WORLD_SIZE is {size}. "
                    f"{_ADVICE}"
                )
    return size > 1


_ADVICE = "torchrun sets it. Start the processes with torchrun, or unset WORLD_SIZE"


def _variable(name: str, least: int, default: str = "") -> int:
    """Return the number in an environment variable; an empty one is not set."""
    text = os.environ.get(name) or default
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= least):
        state = f"is {shown(text)}, not a number from {least}" if text else "is not set"
        raise OptionError(f"The environment variable {name} {state}. {_ADVICE}")
    return int(text)


def local_rank() -> int:
    """Return the number of this process among those that `torchrun` started on this machine."""
    return _variable("LOCAL_RANK", 0, "0")


def speaks() -> bool:
    """Return whether this process prints messages; of several processes, only the first does.

    If the environment variables are wrong, the message about them is printed.
    """
    try:
        return not started_together() or _variable("RANK", 0) == 0
    except OptionError:
        return True
