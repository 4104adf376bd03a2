"""`--on slurm`: an array of pull workers, its script, and watching it."""

from __future__ import annotations

import re
import shlex
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common import signals
from debiasbench.common.errors import StoreError
from debiasbench.common.locks import locked
from debiasbench.common.processes import interpreter
from debiasbench.common.wording import counted, shortened
from debiasbench.runs.job_folder import FINAL, JobFolder, Told
from debiasbench.runs.sbatch import Settings, SlurmError, Task, submit, tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from debiasbench.runs.jobs import Jobs
    from debiasbench.runs.sweep import Attempt

POLL = 1.0  # seconds between two looks at the outcomes
ASK = 10.0  # seconds between two questions to Slurm
GRACE = 120  # seconds before the time limit at which workers stop
RESTARTS = 5  # times that a task is queued again that could not store anything

SCRIPT = """#!/bin/bash
# {workers} of debiasbench {version} for the {runs} in jobs.json, which is beside this file
{options}

# SIGTERM comes before the time limit and at a pre-emption. The worker then writes a checkpoint and
# ends with 75, or with 130 if there was nothing to store, and the task is queued again.
stopped= worker= code=
trap 'stopped=yes again=yes; [ -z "$worker" ] || kill -TERM "$worker" 2> /dev/null' TERM USR1
{setup}
if [ -n "$stopped" ]; then
    code=130
else
    {command} &
    worker=$!
    [ -z "$stopped" ] || kill -TERM "$worker" 2> /dev/null
    again=yes
    while [ -n "$again" ]; do # a signal ends `wait`, but not the worker
        again=
        wait "$worker"
        last=$?
        [ "$last" = 127 ] && [ -n "$code" ] || code=$last
    done
fi
if [ "$code" = 75 ] || {{ [ "$code" = 130 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; }}
then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
    exit 0
fi
exit "$code"
"""


def script(folder: JobFolder, jobs: Jobs, settings: Settings) -> str:
    """Return the script of an array."""
    own = [
        f"--job-name={folder.name}",
        f"--array=0-{jobs.workers - 1}",
        "--requeue",
        f"--signal=B:TERM@{GRACE}",
        "--open-mode=append",
        f'--output="{folder.logs}/%A_%a.log"',
    ]
    python = interpreter() if settings.python is None else [settings.python, "-P"]
    command = shlex.join([*python, "-m", "debiasbench", "work", str(folder.jobs), "--pull"])
    return SCRIPT.format(
        workers=counted(jobs.workers, "worker"),
        version=version("debiasbench"),
        runs=counted(len(jobs.specs), "run"),
        options="\n".join(f"#SBATCH {line}" for line in [*own, *settings.options]),
        setup="\n".join(["", *settings.setup, ""]) if settings.setup else "",
        command=f'{command} "$SLURM_ARRAY_TASK_ID"',
        restarts=RESTARTS,
    )


@dataclass
class Array:
    """The array of a folder of jobs, which any number of commands can watch.

    `number`: of the job in Slurm. `submitted`: whether this command did it; otherwise it was
    running already.
    """

    folder: JobFolder
    number: str
    submitted: bool = True
    _said: str = field(default="", init=False)

    @classmethod
    def of(cls, folder: JobFolder, jobs: Jobs, settings: Settings) -> Array:
        """Return the array of these jobs that Slurm has, or submit one.

        Raises `OptionError` and `SlurmError` with Slurm's words, and `StoreError`.
        """
        try:
            with locked(folder.path, "array", purpose="another command that submits these runs"):
                if found := tasks(folder.name):
                    return cls(folder, found[0].array, submitted=False)
                folder.clear()
                folder.logs.mkdir(exist_ok=True)
                jobs.write(folder.jobs)
                folder.script.write_text(script(folder, jobs, settings))
                return cls(folder, submit(folder.script))
        except OSError as error:
            reason = error.strerror or error
            raise StoreError(f"Cannot write to {folder.path}: {reason}") from error

    def watch(
        self,
        titles: Collection[str],
        report: Callable[[str, Attempt], object],
        say: Callable[[str], object],
    ) -> set[str]:
        """Report the outcomes of runs until each has one or the array is over; return the others.

        Raises `Interrupted` when a signal asks this process to stop; the array goes on.
        """
        told, left, asked = Told(self.folder), set(titles), time.monotonic() - ASK / 2
        results = self.folder.results
        over = False
        while left:
            for line in told.read():
                if line.title in left and line.state in FINAL:
                    left.remove(line.title)
                    report(line.title, line.attempt(results))
            if over:
                break
            signals.check()
            if left and time.monotonic() - asked >= ASK:
                asked = time.monotonic()
                over = self._is_over(say)  # then, what its workers told last is read once more
            elif left:
                time.sleep(POLL)
        return left

    def _is_over(self, say: Callable[[str], object]) -> bool:
        """Ask Slurm for the tasks, and say what people should know; return whether none is left."""
        try:
            found = tasks(self.folder.name)
        except SlurmError as error:
            self._tell(f"{error}. Still watching", say)
            return False
        if found and all(task.state == "PENDING" for task in found):
            self._tell(_waiting(found), say)
        return not found

    def _tell(self, text: str, say: Callable[[str], object]) -> None:
        if text != self._said:
            self._said = text
            say(text)

    def last_words(self) -> str:
        """Return a sentence with the last line of a log of the array, "" if there is none."""
        for log in sorted(self.folder.logs.glob(f"{self.number}_*.log")):
            lines = [line for line in _end(log).splitlines() if line.strip()]
            if lines and not re.match(r"Worker \d+: ", lines[-1]):
                return f"{log.name} ends with: {shortened(lines[-1].strip())}. "
        return ""


def _waiting(found: Sequence[Task]) -> str:
    reasons = Counter(task.reason for task in found if task.reason not in {"", "None"})
    why = f" ({', '.join(reasons)})" if reasons else ""
    return f"Waiting for Slurm: {counted(len(found), 'task')} pending{why}"


def _end(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - 4096))
            return opened.read().decode(errors="replace")
    except OSError:
        return ""
