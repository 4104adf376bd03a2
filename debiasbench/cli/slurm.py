"""Runs of a command as an array of Slurm: what is submitted, and what a person reads meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import click

from debiasbench.cli.common import say
from debiasbench.cli.session_file import SLURM
from debiasbench.common.errors import Interrupted
from debiasbench.common.signals import stopped_by_signals
from debiasbench.common.wording import counted
from debiasbench.records.store import Store, sha256
from debiasbench.runs.job_folder import JobFolder
from debiasbench.runs.on_slurm import Array, script

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from debiasbench.cli.launching import Launcher
    from debiasbench.records.store import Overwrite
    from debiasbench.runs.jobs import Jobs
    from debiasbench.runs.sbatch import Settings
    from debiasbench.specs.spec import Spec


def dry_run(launcher: Launcher, specs: Mapping[str, Spec]) -> str:
    """Return the script of the array that would do the runs."""
    return script(_folder(launcher), _jobs(launcher, specs), _settings())


def attempt(launcher: Launcher, specs: Mapping[str, Spec], *, wait: bool) -> int:
    """Let an array do the runs, and count their outcomes; return an exit code.

    It is not 0 if the array is over and left runs.
    """
    settings = _settings()
    array = Array.of(_folder(launcher), _jobs(launcher, specs), settings)
    said = f"Array {array.number} of Slurm"
    if array.submitted:
        say(f"{said} has {counted(len(specs), 'run')}; logs are in {array.folder.logs}", err=True)
    else:
        say(f"{said} has these runs already, so none is submitted", err=True)
    if not wait:
        say(f"`scancel {array.number}` ends it; without --no-wait, its runs are shown", err=True)
        return 0
    try:
        with stopped_by_signals():
            left = array.watch(specs, launcher.count, lambda text: say(text, err=True))
    except (Interrupted, KeyboardInterrupt):
        say(
            f"{said} goes on. The same command shows its runs; `scancel {array.number}` ends it",
            err=True,
        )
        raise
    if not left or (launcher.runs.tally.codes and not launcher.keep_going):
        return 0
    say(
        f"Error: {said} is over, and {counted(len(left), 'run')} of it "
        f"{'has' if len(left) == 1 else 'have'} no outcome. {array.last_words()} The same command "
        f"submits what is left; logs are in {array.folder.logs}",
        err=True,
    )
    return 1


def _folder(launcher: Launcher) -> JobFolder:
    return JobFolder.of(launcher.options.results, launcher.specs)


def _settings() -> Settings:
    return cast("Settings", click.get_current_context().meta[SLURM])


def _jobs(launcher: Launcher, specs: Mapping[str, Spec]) -> Jobs:
    """Return the runs as the workers of the array read them."""
    launch = launcher.launch
    at_once = launch.jobs * (1 if launch.together == "auto" else launch.together)
    most = -(-len(specs) // at_once)  # workers that have something to do
    return replace(
        launcher.jobs().only(specs),
        together=1 if launch.together == "auto" else launch.together,
        keep_going=launcher.keep_going,
        workers=max(1, min(launch.workers or 1, most)),
        processes=launch.jobs,
        replaces=_replaced(launcher.options.results, specs, launcher.overwrite),
    )


def _replaced(results: Path, specs: Mapping[str, Spec], overwrite: Overwrite) -> dict[str, str]:
    """Return the digest of each record that a run is to replace, by title."""
    if overwrite == "never":
        return {}
    store = Store(results)
    paths = {title: store.path(spec) for title, spec in store.maybe_recorded(specs).items()}
    return {title: sha256(path.read_bytes()) for title, path in paths.items() if path.is_file()}
