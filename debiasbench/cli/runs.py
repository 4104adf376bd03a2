"""The runs of a command that trains several specs, in one session and with one line each."""

from __future__ import annotations

import traceback
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal, Protocol

import click

from debiasbench.cli.common import say
from debiasbench.common.errors import DebiasbenchError, Interrupted, RecordError, StoreError
from debiasbench.common.signals import check
from debiasbench.common.wording import counted
from debiasbench.runs.provenance import changed
from debiasbench.runs.sweep import Attempt, Tally, attempt, attempt_together, in_batches, kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from debiasbench.records.record import Record
    from debiasbench.records.store import Overwrite, Store
    from debiasbench.records.trial import Trial, Trials
    from debiasbench.runs.session import Session
    from debiasbench.runs.session_options import SessionOptions
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec


class Training(Protocol):
    """What a command that trains ends; see `ending`."""

    def say_interrupted(self) -> None:
        """Print that the command was interrupted, and the number of runs by outcome."""

    def close(self) -> None:
        """Close the session of the runs."""


@contextmanager
def ending(training: Training) -> Iterator[None]:
    """Close what the context trains; after an interruption, say what was done, and exit."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        training.say_interrupted()
        click.get_current_context().exit(getattr(error, "exit_code", Interrupted.NOTHING_STORED))
    finally:
        training.close()


class Runs:
    """Runs specs in one session and prints a line for each; the first run opens the session.

    `quiet`: whether to show no progress within a run. `err`: whether to print all lines on stderr.
    `tally`: the number of runs by outcome. `report`: called with the title and the outcome of each
    run, instead of printing its line. `trial`: whether they are trials of searches.
    """

    def __init__(
        self,
        plugins: Plugins,
        options: SessionOptions,
        overwrite: Overwrite,
        total: int,
        *,
        quiet: bool = False,
        err: bool = False,
        report: Callable[[str, Attempt], object] | None = None,
        trial: bool = False,
    ) -> None:
        from debiasbench.records.store import Store
        from debiasbench.records.trial import Trials

        self.plugins, self._options, self._overwrite = plugins, options, overwrite
        self._quiet, self._err, self._said = quiet, err, report
        self.trial = trial
        self._store: Store | Trials = (Trials if trial else Store)(options.results)
        self._session: Session | None = None
        self._paths: list[Path] = []  # of the records of all attempted runs
        self._begun = 0  # attempts, without runs that another process has
        self._changed: Counter[str] = Counter()  # plugins whose code is not that of a record
        self.tally = Tally(total)

    def pending(
        self, specs: Mapping[str, Spec], known: Mapping[str, Path] | None = None
    ) -> dict[str, Spec]:
        """Return the specs that must be run, by title, and count the others as done.

        `known`: records that were made for specs that another machine resolved.
        """
        done = set()
        for title, record in self._finished(specs, known or {}):
            done.add(title)
            self._changed.update(changed(record, self.plugins))
        self.tally.done += len(done)
        return {title: spec for title, spec in specs.items() if title not in done}

    def _finished(
        self, specs: Mapping[str, Spec], known: Mapping[str, Path]
    ) -> Iterator[tuple[str, Record | Trial]]:
        from debiasbench.records.store import read

        yield from self._store.all_finished(specs, self._overwrite)
        for title, path in known.items() if self._overwrite != "always" else ():
            if (spec := specs.get(title)) is None or not spec.unresolved:
                continue
            with suppress(RecordError):  # the record was removed
                spec = spec.resolved_as(read(path).spec)
                if (record := self._store.finished(spec, self._overwrite)) is not None:
                    self._paths.append(self._store.path(spec))
                    yield title, record

    def loadable(self, specs: Mapping[str, Spec]) -> dict[str, Spec]:
        """Return the specs whose data sets can be loaded.

        A data set that cannot be loaded is reported once, and its runs are counted as failed.
        """
        from debiasbench.runs.loading import unloadable

        lost: set[str] = set()
        for problem in unloadable(self.plugins, specs, self._options.data_root):
            lost.update(problem.runs)
            count = len(problem.runs)
            self.tally.codes += [problem.error.exit_code] * count
            say(
                f"Data set {problem.dataset}, {counted(count, 'run')}  failed: "
                f"{' '.join(str(problem.error).split())}",
                err=True,
            )
        return {title: spec for title, spec in specs.items() if title not in lost}

    def heads(self, labels: Iterable[str]) -> dict[str, str]:
        """Return the beginning of each run's line, such as " 3/12  density=0.05 seed=1"."""
        total = self.tally.total
        width = len(str(total))
        return {label: f"{i:>{width}}/{total}  {label}" for i, label in enumerate(labels, 1)}

    def attempt(self, title: str, head: str, spec: Spec) -> None:
        """Run a spec, print a line that begins with `head`, and count it."""
        from debiasbench.common.display import display

        with display(label=head, quiet=self._quiet) as progress:

            def session() -> Session:
                opened = self._open()
                opened.watch(progress)
                return opened

            outcome = attempt(session, spec, self._overwrite, trial=self.trial)
        self._ended(title, head, outcome)

    def _ended(self, title: str, head: str, outcome: Attempt) -> None:
        if self._said is None:
            self.count(head, outcome)
            return
        self._note(outcome)
        self._said(title, outcome)

    def count(self, head: str, outcome: Attempt) -> None:
        """Count the outcome of a run, and print a line that begins with `head`."""
        self._note(outcome)
        if outcome.state == "elsewhere":
            say(f"{head}  is being trained by another process", err=self._err)
        elif outcome.state == "failed":
            say(f"{head}  failed: {' '.join(outcome.problem.split())}", err=True)
        elif outcome.state == "trained" and outcome.path is not None:
            from debiasbench.records import store, trial

            text = (
                _tried(trial.read(outcome.path))
                if self.trial
                else _result(store.read(outcome.path))
            )
            say(f"{head}  {text}", err=self._err)

    def _note(self, outcome: Attempt) -> None:
        self.tally.count(outcome)
        self._begun += outcome.state != "elsewhere"
        self._paths += [outcome.path] if outcome.path is not None else []
        if outcome.error is not None and click.get_current_context().meta.get("debug"):
            click.echo("".join(traceback.format_exception(outcome.error)), err=True)

    def attempt_all(
        self,
        specs: Mapping[str, Spec],
        heads: Mapping[str, str],
        together: int | Literal["auto"],
        *,
        keep_going: bool = True,
        limit: int | None = None,
    ) -> None:
        """Run specs by title, some at once, and print a line for each that begins with its head.

        `together`: how many at once; "auto" measures which number is fastest. `keep_going`: whether
        to begin more runs after one has failed. `limit`: the largest number of runs to begin; those
        that another process runs do not count.
        """
        numbers: dict[str, int] = {}
        last = self._begun + (len(specs) if limit is None else limit)

        def number(spec: Spec) -> int:
            return min(last - self._begun, self._number(spec, together, numbers))

        for batch in in_batches(specs, number):
            check()
            if self._begun >= last or (self.tally.codes and not keep_going):
                return
            if len(batch) == 1:
                ((title, spec),) = batch.items()
                self.attempt(title, heads[title], spec)
            else:
                self._attempt_together(batch, heads)

    def _number(self, spec: Spec, together: int | Literal["auto"], numbers: dict[str, int]) -> int:
        """Return how many runs such as `spec` to run at once; measured once for similar runs."""
        if together != "auto":
            return together
        from debiasbench.measure.pace import fastest

        key = kind(spec)
        if key not in numbers:
            try:
                numbers[key] = fastest(self._open(), spec)
            except (Interrupted, StoreError):
                raise
            except DebiasbenchError:  # the run itself will say what is wrong
                numbers[key] = 1
            if numbers[key] > 1:
                say(f"{numbers[key]} runs at once are fastest on this device", err=True)
        return numbers[key]

    def _attempt_together(self, specs: Mapping[str, Spec], heads: Mapping[str, str]) -> None:
        """Run specs at once, print a line for each, and count them."""
        from debiasbench.common.display import display

        with display(quiet=self._quiet) as progress:

            def session() -> Session:
                opened = self._open()
                opened.watch(progress)
                return opened

            def report(title: str, outcome: Attempt) -> None:
                self._ended(title, heads[title], outcome)

            attempt_together(session, specs, self._overwrite, report, trial=self.trial)

    def records(self, specs: Iterable[Spec]) -> list[Path]:
        """Return the paths of all existing records of the specs.

        The path of a spec that is not resolved is only known after its attempt.
        """
        paths = dict.fromkeys(self._store.path(spec) for spec in specs if not spec.unresolved)
        paths |= dict.fromkeys(self._paths)
        return [path for path in paths if path.exists()]

    def say_interrupted(self) -> None:
        """Print that the command was interrupted, and the number of runs by outcome."""
        say(
            "Interrupted. The records of finished runs are stored, and the same command continues "
            f"the others. {self.tally}",
            err=True,
        )

    def close(self) -> None:
        """Close the session, if it was opened; name plugins that changed since runs were made."""
        for plugin, runs in self._changed.items():
            say(
                f"Warning: {counted(runs, 'finished run')} used another version of the code of "
                f"{plugin}; --overwrite always trains all runs again",
                err=True,
            )
        if self._session is not None:
            self._session.close()

    def _open(self) -> Session:
        if self._session is None:
            self._session = self._options.open(self.plugins, interruptible=True)
        return self._session


def _tried(trial: Trial) -> str:
    """Return the seconds of a trial, or why it failed.

    Not its accuracy: that of the winner is too high, because it won by it.
    """
    if trial.failure is not None:
        return f"cannot be chosen: {' '.join(trial.failure.message.split())}"
    return "" if trial.cost is None else f"{trial.cost.wall_seconds:.0f} s"


def _result(record: Record) -> str:
    """Return the seconds of a run, and its accuracy by the metric of the data set."""
    rule = record.task.select if record.task.select in record.outcomes else "last"
    value = record.outcomes[rule].test.metrics[record.task.metric]
    seconds = 0.0 if record.cost is None else record.cost.wall_seconds
    return f"{seconds:.0f} s  {record.task.metric.replace('_', ' ')} {100 * value:.1f} %"
