"""Errors that users can meet, each with its exit code."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class DebiasbenchError(Exception):
    """An error whose message says what to do; the command line prints it as one line."""

    exit_code = 1


class UnknownNameError(DebiasbenchError, KeyError):
    """A name under which nothing is registered."""

    exit_code = 2

    def __init__(self, kind: str, name: str, available: Iterable[str], hint: str = "") -> None:
        known = sorted(available)
        guess = suggestion(name, known)
        message = f"Unknown {kind} {name!r}.{guess} Available: {', '.join(known)}"
        super().__init__(f"{message}. {hint}" if hint else message)

    # the one of KeyError puts the message in quotes
    __str__ = Exception.__str__


class OptionError(DebiasbenchError, ValueError):
    """An option that does not exist, has the wrong type or lies out of range."""

    exit_code = 2


class PluginError(DebiasbenchError):
    """A plugin that does not load, misspells a hook or registers a name that is in use."""

    exit_code = 3


class DataError(DebiasbenchError):
    """Data that is missing, damaged or inconsistent."""

    exit_code = 4


class SupervisionError(DebiasbenchError):
    """A method that uses labels or splits that it does not declare."""

    exit_code = 5


class TrainingFailed(DebiasbenchError):  # noqa: N818 - the field says "training failed"
    """A loss, a gradient or a weight that became NaN or infinite.

    `step` counts from 0 within the stage. `last_loss` is the last finite loss, None if there was
    none. `quantity` begins the message: "The loss", "A gradient" or "A weight".
    """

    exit_code = 6

    def __init__(
        self, stage: str, step: int, last_loss: float | None, quantity: str = "The loss"
    ) -> None:
        self.stage, self.step, self.last_loss = stage, step, last_loss
        last = (
            "no finite loss before that"
            if last_loss is None
            else f"last finite loss {last_loss:.4g}"
        )
        super().__init__(
            f"{quantity} of stage {stage!r} became NaN or infinite at step {step} ({last}). "
            "Try a smaller learning rate (--set train.lr=...) or gradient clipping "
            "(--set train.clip_norm=1)"
        )


class Interrupted(DebiasbenchError):  # noqa: N818 - nothing went wrong
    """Training that a signal stopped.

    `where` follows "Interrupted" in the message. `resumable`: a checkpoint or more is stored, from
    which the same command continues.
    """

    exit_code = 75  # EX_TEMPFAIL of sysexits.h
    NOTHING_STORED = 130  # the exit code if not `resumable`: the one that shells give to Ctrl-C

    def __init__(self, where: str = "", *, resumable: bool) -> None:
        self.resumable = resumable
        if not resumable:
            self.exit_code = self.NOTHING_STORED
        advice = "run the same command again to continue" if resumable else "nothing new was stored"
        super().__init__(f"Interrupted{where}: {advice}")


class StoreError(DebiasbenchError):
    """A results folder that cannot be written."""

    exit_code = 7


class OutOfMemory(DebiasbenchError):  # noqa: N818 - the usual name
    """A batch that does not fit into memory; the message gives a size that fits."""

    exit_code = 10


class BusyError(DebiasbenchError):
    """Another process is running the same spec into the same results folder."""

    exit_code = 8


class RecordError(DebiasbenchError):
    """A file that is not a valid record, or a page that does not match its records."""

    exit_code = 9


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for a name close to a known one, or an empty string."""
    close = get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
