"""Slurm's commands: options for sbatch, submission, and the tasks of an array."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from debiasbench.common.errors import DebiasbenchError, OptionError
from debiasbench.common.wording import shortened, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PATIENCE = 60.0  # seconds for an answer of Slurm

# what the script of an array decides itself, with the short names
_RESERVED = {
    "array": "--workers N sets the number of tasks",
    "error": "logs are in the folder of the jobs",
    "job-name": "the same command finds its array by the name",
    "open-mode": "logs are continued when a task is queued again",
    "output": "logs are in the folder of the jobs",
    "no-requeue": "stopped workers are queued again to continue",
    "clusters": "log in to that cluster, and give the command there",
    "parsable": "the command reads what sbatch prints",
    "test-only": "--dry-run before -- prints the script",
    "wait": "the command itself waits, except with --no-wait",
    "wrap": "the command makes the script",
}
_SHORT = {
    "a": "array",
    "e": "error",
    "J": "job-name",
    "o": "output",
    "M": "clusters",
    "W": "wait",
}
# sbatch would read other characters in a line of a script in its own way
_PLAIN = re.compile(r"[\w=:,.@%/+*~^()\[\]-]+", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """How an array is submitted.

    `options`: lines for sbatch, see `sbatch_lines`. `setup`: lines that
    the script executes before the worker. `python`: the interpreter, None for that of this process.
    """

    options: Sequence[str] = ()
    setup: Sequence[str] = ()
    python: str | None = None


class SlurmError(DebiasbenchError):
    """An answer of Slurm that is an error, with its own words."""


class Task(NamedTuple):
    """A task of an array: the number of the array, the state, and why it is pending."""

    array: str
    state: str  # such as "RUNNING"
    reason: str  # such as "Resources"


def sbatch_lines(words: Sequence[str]) -> list[str]:
    """Return options of sbatch as the lines of a script have them, such as "--gres=gpu:1".

    A word that is no option is the value of the one before it. Raises `OptionError`.
    """
    lines: list[str] = []
    for word in words:
        if word.startswith("-") and word.strip("-"):
            _check(word)
            lines.append(_quoted(word))
        elif lines and "=" not in lines[-1] and " " not in lines[-1]:
            lines[-1] += f" {_quoted(word)}"
        else:
            raise OptionError(
                f"{shown(word)} is no option for sbatch: these begin with -, such as "
                "--partition=gpu. Words of debiasbench are given before --"
            )
    return lines


def words_of(options: Mapping[str, object]) -> list[str]:
    """Return the words of options by name, such as {"gres": "gpu:1", "exclusive": true}."""
    return [
        f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()
    ]


def _check(word: str) -> None:
    name, _, value = word.lstrip("-").partition("=")
    if not word.startswith("--"):
        name, value = _SHORT.get(word[1], word[1]), word[2:]
    # sbatch takes the beginning of a long name for the name
    long = word.startswith("--")
    whole = [known for known in _RESERVED if name == known or (long and known.startswith(name))]
    if whole:
        raise OptionError(f"{shown(word)} cannot be given to sbatch: {_RESERVED[whole[0]]}")
    signals = name == "signal" or (long and len(name) > 1 and "signal".startswith(name))
    if signals and not re.fullmatch(r"B:(TERM|USR1|15|10)(@\d+)?", value):
        raise OptionError(
            f"{shown(word)} for sbatch would not reach the worker: use --signal=B:TERM@SECONDS"
        )


def _quoted(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    if word == "" or re.search(r"[\"'\\`$\x00-\x1f\x7f]", word):
        raise OptionError(
            f"{shown(word)} cannot be written into a script for sbatch: give a value without "
            "quotes, backslashes, $ and control characters"
        )
    name, equals, value = word.partition("=")
    return f'{name}="{value}"' if equals and _PLAIN.fullmatch(name) else f'"{word}"'


def submit(script: Path) -> str:
    """Submit a script, and return the number of its job; raises `OptionError`."""
    if shutil.which("sbatch") is None:
        raise OptionError(
            "--on slurm needs Slurm's command sbatch, which is not on PATH: give the command on a "
            "login node of the cluster, or use --on local"
        )
    said = _call("sbatch", "--parsable", str(script))
    number = said.stdout.strip().partition(";")[0]
    if said.returncode or not number.isdecimal():
        raise OptionError(f"sbatch refused the array: {_words(said)}")
    return number


def tasks(name: str) -> list[Task]:
    """Return the tasks of this user's jobs with a name that are not over; raises `SlurmError`."""
    if shutil.which("squeue") is None:
        return []  # and nothing can be submitted
    user = f"--user={os.getuid()}"
    said = _call("squeue", "--noheader", "--array", user, f"--name={name}", "--format=%F|%T|%r")
    if said.returncode:
        raise SlurmError(f"Slurm does not answer: {_words(said)}")
    found = (line.strip().split("|", 2) for line in said.stdout.splitlines())
    return [Task(*parts) for parts in found if len(parts) == 3]


def _call(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
            start_new_session=True,  # Ctrl-C does not end it
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 1, "", f"no answer in {PATIENCE:.0f} s")
    except OSError as error:
        return subprocess.CompletedProcess(words, 1, "", f"{error.strerror or error}")


def _words(said: subprocess.CompletedProcess[str]) -> str:
    """Return what a command of Slurm printed as an error, in one line."""
    lines = (said.stderr or said.stdout).splitlines()
    told = [re.sub(r"^\w+: (error: )?", "", line.strip()) for line in lines]
    told = [line for line in told if line and not line.startswith("Try ")]
    return shortened("; ".join(told) or f"it ended with exit code {said.returncode}")
