"""Where the runs of a command are trained: `--jobs`, `--together`, `--on` and their checks."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from debiasbench.cli.common import say, together_option
from debiasbench.cli.places import cluster_options, on_option
from debiasbench.common.signals import stopped_by_signals
from debiasbench.runs.crew import Crew
from debiasbench.runs.jobs import Jobs
from debiasbench.runs.sweep import in_batches
from debiasbench.runs.workers import hiring, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from debiasbench.cli.on_ray import Asked
    from debiasbench.cli.runs import Runs
    from debiasbench.core.settings import AnyPrecision
    from debiasbench.records.store import Overwrite
    from debiasbench.runs.job_folder import JobFolder
    from debiasbench.runs.session_options import SessionOptions
    from debiasbench.runs.sweep import Attempt
    from debiasbench.specs.spec import Spec


@dataclass(frozen=True)
class Launch:
    """Where and how many runs are trained at once, as the options of a command say."""

    jobs: int = 1
    together: int | Literal["auto"] = 1
    on: str = "local"
    workers: int | None = None
    wait: bool = True
    cpus_per_run: float | None = None
    gpus_per_run: float | None = None
    memory_per_run: float | None = None
    fetch_checkpoints: float | None = None

    @property
    def on_ray(self) -> bool:
        """Whether the runs are trained by Ray."""
        return self.on == "ray" or self.on.startswith("ray:")

    @property
    def processes(self) -> int:
        """Number of processes that train at once; on Ray without --workers it is not known."""
        return self.jobs if self.on == "local" else self.jobs * (self.workers or 1)

    def check(self) -> None:
        """Raise `UsageError` for options that cannot be combined."""
        if self.on == "slurm":
            if self.workers is None:
                raise click.UsageError(
                    "--on slurm needs --workers N, the number of tasks to submit"
                )
        elif not self.wait:
            raise click.UsageError("--no-wait needs --on slurm")
        elif self.workers is not None and not self.on_ray:
            raise click.UsageError(
                "--workers needs --on ray or --on slurm; --jobs N uses N processes here"
            )
        if self.on_ray and self.jobs > 1:
            raise click.UsageError("--jobs is for processes here: use --workers N with --on ray")
        if self.on != "local" and self.together == "auto":
            raise click.UsageError("--together auto measures here: give a number for a cluster")
        if not self.on_ray:
            self._check_is_ray("cpus_per_run", "gpus_per_run", "memory_per_run")
            self._check_is_ray("fetch_checkpoints")
        if self.jobs > 1 and self.together != 1:
            raise click.UsageError(
                "--jobs and --together both train several runs at once: use one of them"
            )

    def asked_of_ray(self) -> Asked:
        """Return what the options ask of Ray."""
        from debiasbench.cli.on_ray import Asked

        return Asked(
            self.on.partition(":")[2] or None,
            self.cpus_per_run,
            self.gpus_per_run,
            self.memory_per_run,
            self.workers,
            self.fetch_checkpoints,
        )

    def _check_is_ray(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise click.UsageError(f"--{name.replace('_', '-')} needs --on ray")

    def precision(self, options: SessionOptions) -> AnyPrecision:
        """Return the precision that "auto" means on the device that will train the runs.

        It is "auto" if only the workers will know their device, as in Slurm.
        """
        if self.on == "slurm" and options.device != "cpu":
            return "auto"
        if self.on_ray and options.device != "cpu":
            from debiasbench.cli import on_ray

            return on_ray.precision(self.asked_of_ray(), options)
        return options.precision()

    def known(self, options: SessionOptions, specs: Mapping[str, Spec]) -> dict[str, Path]:
        """Return the records of specs that workers on other machines resolved, by title."""
        if self.on != "slurm" or not any(spec.unresolved for spec in specs.values()):
            return {}
        from debiasbench.runs.job_folder import JobFolder

        records = JobFolder.of(options.results, specs).records()
        return {title: options.results / name for title, name in records.items()}


def launch_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `Launch`, and pass them to the command as its argument `launch`."""

    @wraps(command)
    def collected(**arguments: Any) -> Any:
        names = [each.name for each in fields(Launch) if each.name in arguments]
        launch = Launch(**{name: arguments.pop(name) for name in names})
        launch.check()
        return command(launch=launch, **arguments)

    jobs = click.option(
        "--jobs",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Number of processes that train at once. On a CPU, each uses as many threads as a run "
        "alone, so results are equal; see train.threads. With several GPUs, each process uses one, "
        "in turn.",
    )
    return on_option(jobs(together_option(cluster_options(collected))))


@dataclass
class Launcher:
    """Attempts the runs of a command where its options say, and counts them.

    `specs`: all runs of the command, by title, including those that need not be run. `heads`: the
    beginning of the line of each.
    """

    launch: Launch
    runs: Runs
    options: SessionOptions
    specs: Mapping[str, Spec]
    heads: Mapping[str, str]
    overwrite: Overwrite = "failed"
    quiet: bool = False
    keep_going: bool = True

    def attempt(
        self,
        first: Mapping[str, Spec],
        others: Mapping[str, Spec] | None = None,
        limit: int | None = None,
    ) -> int:
        """Attempt the runs in `first`; `others` may replace those that another process trains.

        Returns the exit code of a process that left runs to do although it did not fail in one.
        """
        if self.launch.on == "slurm":
            from debiasbench.cli import slurm

            if not first:
                return 0
            return slurm.attempt(*self._array(first), self.count, wait=self.launch.wait)
        if self.launch.on_ray:
            from debiasbench.cli import on_ray

            jobs = self.jobs().only(first)
            asked = self.launch.asked_of_ray()
            return self.ended(on_ray.attempt(asked, jobs, self.batches, self.count))
        if self.launch.jobs == 1:
            self.runs.attempt_all(
                {**first, **(others or {})},
                self.heads,
                self.launch.together,
                keep_going=self.keep_going,
                limit=limit,
            )
            return 0
        return self._share_out(first)

    def _share_out(self, specs: Mapping[str, Spec]) -> int:
        """Let several processes on this machine attempt the runs."""
        with (
            tempfile.TemporaryDirectory(prefix="debiasbench-") as folder,
            stopped_by_signals() as stop,
        ):
            file = Path(folder) / "jobs.json"
            self.jobs().write(file)

            def report(title: str, outcome: Attempt) -> bool:
                stop.resumable |= outcome.state == "trained"
                return self.count(title, outcome)

            hire = hiring(file, self.options.device, self.launch.jobs)
            crew = Crew(hire, wait_for, report, stop)
            crew.run(self.batches(specs), self.launch.jobs)
            stop.check()
        return self.ended(crew.code)

    def ended(self, code: int) -> int:
        """Return the exit code of a crew, 0 if it left nothing to do."""
        if code and self.runs.tally.left:
            say("Error: a process ended before all runs were attempted", err=True)
            return code
        return 0

    def preview(self, specs: Mapping[str, Spec]) -> str:
        """Return the lines of the runs, or the script of the array that would do them."""
        if self.launch.on == "slurm" and specs:
            from debiasbench.cli import slurm

            return slurm.dry_run(*self._array(specs))
        return "".join(f"{self.heads[title]}\n" for title in specs)

    def _array(self, specs: Mapping[str, Spec]) -> tuple[JobFolder, Jobs]:
        """Return the folder of an array that does the runs, and the runs as workers read them."""
        from debiasbench.cli.slurm import replaced
        from debiasbench.runs.job_folder import JobFolder

        together = 1 if self.launch.together == "auto" else self.launch.together
        most = -(-len(specs) // (self.launch.jobs * together))  # workers that have something to do
        jobs = replace(
            self.jobs().only(specs),
            together=together,
            keep_going=self.keep_going,
            workers=max(1, min(self.launch.workers or 1, most)),
            processes=self.launch.jobs,
            replaces=replaced(self.options.results, specs, self.overwrite, trial=self.runs.trial),
        )
        return JobFolder.of(self.options.results, self.specs), jobs

    def jobs(self) -> Jobs:
        """Return the runs as other processes read them."""
        return Jobs(
            dict(self.specs),
            self.options,
            overwrite=self.overwrite,
            debug=bool(click.get_current_context().meta.get("debug")),
            quiet=self.quiet,
            trial=self.runs.trial,
            files=self.runs.plugins.files(),
        )

    def batches(self, specs: Mapping[str, Spec]) -> Iterable[list[str]]:
        """Divide runs into those that one process trains at once."""
        number = 1 if self.launch.together == "auto" else self.launch.together
        return (list(batch) for batch in in_batches(specs, lambda _: number))

    def count(self, title: str, outcome: Attempt) -> bool:
        """Count and print the outcome of a run; return whether to begin more runs."""
        self.runs.count(self.heads[title], outcome)
        return self.keep_going or not self.runs.tally.codes
