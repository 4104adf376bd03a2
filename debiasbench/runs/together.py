"""Run several specs at once: their stages are trained together, and everything else in turns.

Each run has a thread, of which one is active at a time, so global state is never shared: a method
is ordinary code that calls `lab.train` and waits for the result. When all runs wait, stages of one
rhythm are trained by `debiasbench.training.together`.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from debiasbench.common.errors import DebiasbenchError, Interrupted, StoreError
from debiasbench.common.global_state import Kept
from debiasbench.common.locks import LockHeldError
from debiasbench.common.progress import Progress
from debiasbench.common.signals import stopped_by_signals
from debiasbench.core.stage import Trained
from debiasbench.training.identity import usual_surroundings
from debiasbench.training.stage_training import StageTraining
from debiasbench.training.together import rhythm, train_together
from debiasbench.training.trainer import Sequential, check_stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from debiasbench.core.stage import Stage, Trainer
    from debiasbench.records.store import Run
    from debiasbench.records.trial import TrialRun
    from debiasbench.runs.run import Workplace
    from debiasbench.specs.spec import Spec
    from debiasbench.training.placed import PlacedTask
    from debiasbench.training.stage_training import Surroundings

T = TypeVar("T", "Run", "TrialRun")


def run_together(
    workplace: Workplace,
    specs: Sequence[Spec],
    run: Callable[[Workplace, Spec], T],
    report: Callable[[Spec, T | DebiasbenchError], object] | None = None,
) -> dict[str, T | DebiasbenchError]:
    """Run resolved specs, no two of them equal; see `Session.run_many`. Returns outcomes by id.

    `run`: runs one of them, as a record or as a trial.
    """
    fits = [_Fit(workplace, spec, run, report) for spec in specs]
    following = stopped_by_signals() if workplace.interruptible else nullcontext()
    workplace.progress.begin(f"{len(specs)} runs at once")
    with following:
        try:
            for fit in fits:
                fit.go_on()
            while waiting := [fit for fit in fits if fit.waits]:
                _train_some(waiting, workplace.progress)
        finally:
            for fit in fits:  # after an error here, such as Ctrl-C in a notebook
                fit.end()
    _check(fits)
    return {fit.spec.id: fit.outcome() for fit in fits}


def _train_some(waiting: Sequence[_Fit[T]], progress: Progress) -> None:
    """Train stages of one rhythm, that of most runs if possible, and let these runs go on."""
    groups: dict[str, list[_Fit[T]]] = {}
    for fit in waiting:
        groups.setdefault(rhythm(fit.asked), []).append(fit)
    largest_first = sorted(groups.values(), key=len, reverse=True)
    for group in map(_without_doubles, largest_first):
        # a process that holds stages while it waits for those of another could wait forever
        asked = [fit.asked for fit in group]
        answers = train_together(asked, progress, wait="never", contain=True)
        if not all(isinstance(answer, LockHeldError) for answer in answers):
            break
    else:  # other processes train all of them
        group = largest_first[0][:1]
        answers = train_together([group[0].asked], progress, contain=True)
    for fit, answer in zip(group, answers, strict=True):
        if not isinstance(answer, LockHeldError):
            fit.go_on(answer)


def _without_doubles(group: Sequence[_Fit[T]]) -> list[_Fit[T]]:
    """Leave out all but the first of equal stages: the others will find it trained."""
    found: dict[str, _Fit[T]] = {}
    for fit in group:
        found.setdefault(fit.asked.key, fit)
    return list(found.values())


def _check(fits: Sequence[_Fit[T]]) -> None:
    """Raise the error of a run that ends all: it was stopped, could not be stored, or is a bug."""
    errors = [fit.error for fit in fits if fit.error is not None]
    for error in errors:
        if isinstance(error, StoreError) or not isinstance(error, DebiasbenchError):
            raise error
    stopped = [error for error in errors if isinstance(error, Interrupted)]
    if stopped:
        raise next((error for error in stopped if error.resumable), stopped[0])


class _Fit(Generic[T]):
    """One run in a thread of its own, which runs while `go_on` waits.

    `waits`: whether it waits for `asked`, a stage to train. `error`: what it raised.
    """

    def __init__(
        self,
        workplace: Workplace,
        spec: Spec,
        run: Callable[[Workplace, Spec], T],
        report: Callable[[Spec, T | DebiasbenchError], object] | None,
    ) -> None:
        self.spec = spec
        self._report: Callable[[Spec, T | DebiasbenchError], object] | None = report
        self.error: BaseException | None = None
        self.waits = self._active = False
        self._asked: StageTraining | None = None
        self._run: T | None = None
        self._answer: Trained | BaseException | None = None
        self._resumed, self._paused = Event(), Event()
        own = _OwnWorkplace(workplace, self)

        def compute() -> None:
            try:
                self._run = run(own, spec)
            except BaseException as error:
                self.error = error
            finally:
                self.waits = False
                self._paused.set()

        self._thread = Thread(target=compute, name=f"debiasbench-{spec.stem}", daemon=True)

    @property
    def asked(self) -> StageTraining:
        """The stage that it waits for."""
        assert self._asked is not None
        return self._asked

    def go_on(self, answer: Trained | BaseException | None = None) -> None:
        """Let the run go on, with what it waited for, until it waits again or ends."""
        self._paused.clear()
        self.waits, self._answer, self._active = False, answer, True
        if answer is None:
            self._thread.start()
        else:
            self._resumed.set()
        self._wait()

    def end(self) -> None:
        """End a run that has not ended."""
        if self._active:
            self._wait()
        while self.waits:
            self.go_on(Interrupted(resumable=True))

    def _wait(self) -> None:
        self._paused.wait()
        self._active = False
        ended = self._run if self._run is not None else self.error
        if self._report is None or self.waits or ended is None:
            return
        if not isinstance(ended, BaseException) or (
            isinstance(ended, DebiasbenchError) and not isinstance(ended, (Interrupted, StoreError))
        ):
            self._report(self.spec, ended)

    def ask(self, training: StageTraining, outside: Kept) -> Trained:
        """Wait until a stage is trained; called in the thread of the run.

        `outside`: the global settings that other runs must find.
        """
        own = Kept()
        outside.restore()
        self._asked, self.waits = training, True
        self._paused.set()
        self._resumed.wait()
        self._resumed.clear()
        own.restore()
        answer = self._answer
        self._asked = self._answer = None  # the optimizer and the graphs
        if isinstance(answer, Trained):
            return answer
        assert answer is not None
        raise answer

    def outcome(self) -> T | DebiasbenchError:
        """Return the run, or its error."""
        if self._run is not None:
            return self._run
        assert isinstance(self.error, DebiasbenchError)
        return self.error


class _OwnWorkplace:
    """The workplace of one of the runs: as that of the session, but its stages are asked for."""

    def __init__(self, workplace: Workplace, fit: _Fit[Any]) -> None:
        self.plugins, self.store = workplace.plugins, workplace.store
        self.execution, self.checkpoint_every = workplace.execution, workplace.checkpoint_every
        self.interruptible = workplace.interruptible
        self.trackers = workplace.trackers
        self.progress = Progress()  # that of a single run would be mixed with the others'
        self._workplace, self._fit, self._outside = workplace, fit, Kept()

    def task(self, spec: Spec) -> PlacedTask:
        return self._workplace.task(spec)

    def trainer(self, surroundings: Surroundings) -> Trainer:
        return _Asking(surroundings, lambda training: self._fit.ask(training, self._outside))


class _Asking:
    """A trainer that lets others train its stages; `waited`: seconds in which other runs worked."""

    def __init__(self, surroundings: Surroundings, ask: Callable[[StageTraining], Trained]) -> None:
        self._surroundings, self._ask = surroundings, ask
        self.waited = 0.0

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        """Train stages, together with those of other runs."""
        if not usual_surroundings():  # the method changed what a stage depends on
            return Sequential.within(self._surroundings).train(stages)
        return [self._trained(stage) for stage in stages]

    def _trained(self, stage: Stage) -> Trained:
        check_stage(stage, self._surroundings.execution)
        training = StageTraining(stage, self._surroundings)
        begun = time.perf_counter()
        try:
            trained = self._ask(training)
        finally:
            self.waited += time.perf_counter() - begun - training.share
        training.release()
        return trained
