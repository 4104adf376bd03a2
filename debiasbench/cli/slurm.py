"""Runs of a command as an array of Slurm: what is submitted, and what a person reads meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from debiasbench.cli.common import say
from debiasbench.cli.session_file import SLURM
from debiasbench.common.errors import Interrupted
from debiasbench.common.signals import stopped_by_signals
from debiasbench.common.wording import counted
from debiasbench.records.store import Store, sha256
from debiasbench.runs.on_slurm import Array, script

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from debiasbench.records.store import Overwrite
    from debiasbench.runs.job_folder import JobFolder
    from debiasbench.runs.jobs import Jobs
    from debiasbench.runs.sbatch import Settings
    from debiasbench.runs.sweep import Attempt
    from debiasbench.specs.spec import Spec


def dry_run(folder: JobFolder, jobs: Jobs) -> str:
    """Return the script of the array that would do the runs."""
    return script(folder, jobs, _settings())


def attempt(
    folder: JobFolder, jobs: Jobs, report: Callable[[str, Attempt], bool], *, wait: bool
) -> int:
    """Let an array do the runs, and report their outcomes; return an exit code.

    `report`: returns whether more runs are to begin. The code is not 0 if the array is over and
    left runs.
    """
    array = Array.of(folder, jobs, _settings())
    said = f"Array {array.number} of Slurm"
    if array.submitted:
        say(f"{said} has {counted(len(jobs.specs), 'run')}; logs are in {folder.logs}", err=True)
    else:
        say(f"{said} has these runs already, so none is submitted", err=True)
    if not wait:
        say(f"`scancel {array.number}` ends it; without --no-wait, its runs are shown", err=True)
        return 0
    going = True

    def count(title: str, outcome: Attempt) -> None:
        nonlocal going
        going = report(title, outcome) and going

    try:
        with stopped_by_signals():
            left = array.watch(jobs.specs, count, lambda text: say(text, err=True))
    except (Interrupted, KeyboardInterrupt) as error:
        say(
            f"{said} goes on. The same command shows its runs; `scancel {array.number}` ends it",
            err=True,
        )
        raise Interrupted(resumable=True) from error
    if not left or not going:
        return 0
    say(
        f"Error: {said} is over, and {counted(len(left), 'run')} of it "
        f"{'has' if len(left) == 1 else 'have'} no outcome. {array.last_words()}The same command "
        f"submits what is left; logs are in {folder.logs}",
        err=True,
    )
    return 1


def _settings() -> Settings:
    return cast("Settings", click.get_current_context().meta[SLURM])


def replaced(
    results: Path, specs: Mapping[str, Spec], overwrite: Overwrite, *, trial: bool
) -> dict[str, str]:
    """Return the digest of each record, or trial, that a run is to replace, by title."""
    from debiasbench.records.trial import Trials

    if overwrite == "never" or (trial and overwrite != "always"):
        return {}  # a trial that failed counts
    if trial:
        paths = {title: Trials(results).path(spec) for title, spec in specs.items()}
    else:
        store = Store(results)
        paths = {title: store.path(spec) for title, spec in store.maybe_recorded(specs).items()}
    return {title: sha256(path.read_bytes()) for title, path in paths.items() if path.is_file()}
