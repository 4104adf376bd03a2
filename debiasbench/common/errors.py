"""Errors that users can meet, each with its exit code."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from debiasbench.common.wording import joined, listed, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

FEW = 40  # names that a message lists; of more, it has only those that are close
LONGEST = 100  # characters of a name; nothing is similar to a longer one


class DebiasbenchError(Exception):
    """An error with advice in its message; the command line prints it as one line."""

    exit_code = 1


class UnknownNameError(DebiasbenchError, KeyError):
    """A name under which nothing is registered.

    The message has the closest of the `available` names, and all of them if they are few.
    """

    exit_code = 2

    def __init__(self, kind: str, name: str, available: Iterable[str], hint: str = "") -> None:
        known = sorted(available)
        few = len(known) <= FEW
        guess = suggestion(name, known, most=1 if few else 3)
        names = f"Available: {listed(known)}" if few else f"{len(known):,} names are available"
        message = f"Unknown {kind} {shown(name)}.{guess} {names}"
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


class SearchFailed(DebiasbenchError):  # noqa: N818 - as of training
    """A search without a winner, because all of its trials failed."""

    exit_code = 6


class TrainingFailed(DebiasbenchError):  # noqa: N818 - the field says "training failed"
    """A loss, a gradient or a weight that became NaN or infinite.

    `step` counts from 0 within the stage. `last_loss` is the last finite loss, None if there was
    none. `quantity` begins the message: "The loss", "A gradient" or "A weight". `kind` is the kind
    of failure in records.
    """

    exit_code = 6
    kind = "NonFiniteLoss"

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


class PredictionFailed(TrainingFailed):
    """Predictions that are NaN.

    `stage` and `step` are those that were trained last; "" if no stage was trained.
    """

    kind = "NonFiniteLogits"

    def __init__(self, stage: str = "", step: int = 0) -> None:
        self.stage, self.step, self.last_loss = stage, step, None
        after = f" after step {step} of stage {stage!r}" if stage else ""
        DebiasbenchError.__init__(
            self,
            f"The network predicts NaN{after}. Try a smaller learning rate (--set train.lr=...) or "
            "gradient clipping (--set train.clip_norm=1)",
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


def suggestion(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return ` Did you mean 'x'?` with up to `most` close names, or an empty string."""
    close = [repr(other) for other in close_names(name, known, most)]
    return f" Did you mean {joined(close, 'or')}?" if close else ""


def close_names(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return the known names that are most similar to `name`, best first.

    Upper and lower case are equal. A name that differs in case only is the only one that is
    returned. If several names are wanted, those that begin with `name` come after the similar ones.
    """
    by_lower: dict[str, str] = {}
    for other in known:
        by_lower.setdefault(other.lower(), other)
    wanted = name.lower()
    if wanted in by_lower:
        return [by_lower[wanted]]
    close = get_close_matches(wanted, by_lower, n=most) if len(wanted) <= LONGEST else []
    if most > 1 and len(wanted) >= 3:  # shorter ones begin too many names
        longer = sorted((other for other in by_lower if other.startswith(wanted)), key=len)
        close += [other for other in longer if other not in close]
    return [by_lower[other] for other in close[:most]]
