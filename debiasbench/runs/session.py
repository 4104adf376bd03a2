"""`Session`: the plugins, folders and device of a process, and the tasks placed on the device."""

from __future__ import annotations

import os
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import (
    DataError,
    DebiasbenchError,
    Interrupted,
    StoreError,
    UnknownNameError,
)
from debiasbench.common.foreign import contained, explained, is_interrupt
from debiasbench.common.options import as_dict
from debiasbench.common.processes import speaks
from debiasbench.common.progress import Progress
from debiasbench.core.texts import Texts
from debiasbench.files import task_cache
from debiasbench.files.token_cache import tokenised
from debiasbench.records.metrics import METRICS
from debiasbench.records.selection import RULES
from debiasbench.records.store import Store
from debiasbench.runs.fit import Fitted, fit_spec
from debiasbench.runs.run import run_spec, run_trial
from debiasbench.runs.together import run_together
from debiasbench.runs.tracking.trackers import Trackers
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import find_dataset, instance, make_spec, training_of
from debiasbench.specs.revisions import renewed
from debiasbench.training.batch_size import Sizing
from debiasbench.training.device import computing_threads
from debiasbench.training.distributed import joined
from debiasbench.training.execution import Execution
from debiasbench.training.placed import PlacedTask
from debiasbench.training.predict import Predictor
from debiasbench.training.trainer import Sequential

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from debiasbench.core.data import Dataset, Task
    from debiasbench.core.method import Method
    from debiasbench.core.stage import Trainer
    from debiasbench.records.store import Overwrite, Run
    from debiasbench.records.trial import TrialRun
    from debiasbench.runs.run import Workplace
    from debiasbench.specs.spec import Choice, Spec
    from debiasbench.training.precision import Compile
    from debiasbench.training.stage_training import Surroundings

T = TypeVar("T", "Run", "TrialRun")

TASKS = 1 << 30  # bytes of placed tasks that are kept when another one is needed


class Session:
    """Runs specs, and has everything that the runs of a process share.

    `plugins`: by default, all builtin and installed plugins.
    `data_root`, `results`: folders of data files and of records. By default, `data_root` is the
    environment variable DEBIASBENCH_DATA, or "data".
    `device`: such as "cpu" or "cuda:1"; "auto" is an accelerator if there is one, otherwise the
    CPU. By default, the environment variable DEBIASBENCH_DEVICE, or "auto".
    `compile`, `deterministic`: see `debiasbench.training.precision.Numerics`. `graphs`: whether
    steps are captured and replayed as graphs, if the device is an NVIDIA GPU.
    `checkpoint_every`: seconds between checkpoints, or more if writing them would take more than
    a fiftieth of the time.
    `interruptible`: whether SIGINT, SIGTERM and SIGUSR1 end a run after the current step, with a
    checkpoint and `Interrupted`; only possible in the main thread.
    `progress`: receives the progress of training. "auto" shows a bar if stderr is a terminal or the
    code runs in a notebook, otherwise nothing; None shows nothing.

    A session is a context manager. Leaving it ends the communication between processes that
    `torchrun` started; a single process does not need to leave it.
    """

    def __init__(
        self,
        plugins: Plugins | None = None,
        *,
        data_root: Path | str | None = None,
        results: Path | str = "results",
        device: str | None = None,
        compile: Compile = "off",  # noqa: A002 - what torch calls it
        deterministic: bool = False,
        graphs: bool = True,
        checkpoint_every: float = 60.0,
        interruptible: bool = False,
        progress: Progress | Literal["auto"] | None = "auto",
    ) -> None:
        self.plugins = plugins or _installed()
        # the same defaults as on the command line
        self.data_root = Path(data_root or os.environ.get("DEBIASBENCH_DATA", "data"))
        device = device or os.environ.get("DEBIASBENCH_DEVICE", "auto")
        self.store = Store(Path(results))
        self.checkpoint_every, self.interruptible = checkpoint_every, interruptible
        self.progress = Progress()
        self._interactive = progress == "auto"
        if isinstance(progress, Progress):
            self.progress = progress
        execution = Execution.on(
            device, compile=compile, deterministic=deterministic, graphs=graphs
        )
        self._exit = ExitStack()
        team = self._exit.enter_context(joined(execution.device))
        self.execution = replace(execution, team=team)
        self.trackers = Trackers(self.plugins if team.rank == 0 else None)
        self._tasks: dict[str, PlacedTask] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the placed tasks, and end trackers and the communication with other processes."""
        self._tasks = {}
        self.trackers.close()
        self._exit.close()

    def watch(self, progress: Progress | None) -> None:
        """Report progress to `progress` from now on; None reports nothing."""
        self.progress, self._interactive = progress or Progress(), False

    # --- specs --------------------------------------------------------------------------------

    def spec(
        self,
        method: str | type[Method],
        dataset: str | type[Dataset] = "digits",
        **choices: Any,
    ) -> Spec:
        """Return the resolved spec of a run; `choices` are arguments of `make_spec`.

        `method`: a name, or a class, which need not be registered. `dataset`: the same, or the name
        of imported data.
        """
        dataset = self.plugins.datasets.name_of(dataset)
        dataset, implied = find_dataset(self.plugins, dataset, self.data_root)
        if implied:
            choices["dataset_options"] = {**implied, **choices.get("dataset_options", {})}
        precision = self.execution.numerics().precision
        spec = make_spec(
            self.plugins, method=method, dataset=dataset, precision=precision, **choices
        )
        return self.resolve(spec)

    def resolve(self, spec: Spec) -> Spec:
        """Return a spec that no longer depends on the machine.

        `precision="auto"` becomes the precision of this device. `micro_batch="auto"` becomes the
        number of samples that fit into the memory of this device, found by one step of each stage,
        or None if whole batches fit. Revisions become those of the installed code.
        """
        spec = renewed(self.plugins, spec)
        if not spec.unresolved:
            return spec
        settings = training_of(spec)
        if settings.precision == "auto":
            settings = replace(settings, precision=self.execution.numerics().precision)
        if settings.micro_batch == "auto":
            settings = replace(settings, micro_batch=None)
            sizing = Sizing(self.execution)
            self.rehearse(replace(spec, training=as_dict(settings)), sizing)
            settings = replace(settings, micro_batch=sizing.micro_batch)
        return replace(spec, training=as_dict(settings))

    # --- runs ---------------------------------------------------------------------------------

    def run(
        self, spec: Spec, *, overwrite: Overwrite = "failed", keep_weights: bool = False
    ) -> Run:
        """Run a spec and store its record, or return the existing record.

        A run that was killed resumes from its last checkpoint. Stages that any run in `results`
        has trained are not trained again. If the loss becomes NaN, the record has the status
        "failed". Processes that `torchrun` started train the run together: all return it, and the
        first writes it.

        `overwrite`: which existing records are replaced: "never" none, "failed" those of failed
        runs, "always" all. `keep_weights`: whether the network's weights, at the epoch of the data
        set's selection rule, are stored beside the record.

        Raises `BusyError` if another process is running the spec, and other errors of
        `debiasbench.common.errors`; then no record is written.
        """
        with self._shown():
            spec = self.resolve(spec)
            return run_spec(self, spec, overwrite=overwrite, keep_weights=keep_weights)

    def trial(self, spec: Spec, *, overwrite: Overwrite = "failed") -> TrialRun:
        """Run a spec as a trial of a search, and store it, or return the existing trial.

        It is trained like a run, but only its validation split is evaluated: the test split is
        never read. A trial whose training failed is not run again, unless `overwrite` is "always".
        Resumes and raises as `run` does.
        """
        with self._shown():
            return run_trial(self, self.resolve(spec), overwrite=overwrite)

    def run_many(
        self,
        specs: Iterable[Spec],
        *,
        overwrite: Overwrite = "failed",
        keep_weights: bool = False,
        report: Callable[[Spec, Run | DebiasbenchError], object] | None = None,
    ) -> list[Run | DebiasbenchError]:
        """Run several specs at once, and return the run or the error of each, in order.

        Stages that take their steps in the same rhythm, such as those of several seeds, are trained
        at once. On a GPU that is faster than one run after the other, as long as a single network
        leaves the device idle. Each run writes its own record and checkpoints, and resumes from
        them. On a CPU, records are bit for bit those of `run`.

        A run that fails leaves the others untouched; its error is in the list. A spec that occurs
        twice is run once. `report`: called with the resolved spec and the outcome when a run ends.
        Raises `Interrupted` and `StoreError` when all runs have ended. For other arguments see
        `run`.
        """
        run = partial(run_spec, overwrite=overwrite, keep_weights=keep_weights)
        return self._many(specs, run, report)

    def trial_many(
        self,
        specs: Iterable[Spec],
        *,
        overwrite: Overwrite = "failed",
        report: Callable[[Spec, TrialRun | DebiasbenchError], object] | None = None,
    ) -> list[TrialRun | DebiasbenchError]:
        """Run several specs at once as trials of a search; see `trial` and `run_many`."""
        return self._many(specs, partial(run_trial, overwrite=overwrite), report)

    def _many(
        self,
        specs: Iterable[Spec],
        run: Callable[[Workplace, Spec], T],
        report: Callable[[Spec, T | DebiasbenchError], object] | None,
    ) -> list[T | DebiasbenchError]:
        with self._shown():
            resolved = [self._resolved(spec) for spec in specs]
            distinct = {spec.id: spec for spec in resolved if not isinstance(spec, Exception)}
            done = run_together(self, list(distinct.values()), run, report)
            return [s if isinstance(s, DebiasbenchError) else done[s.id] for s in resolved]

    def _resolved(self, spec: Spec) -> Spec | DebiasbenchError:
        """Return a resolved spec, or why it cannot be resolved."""
        try:
            return self.resolve(spec)
        except (Interrupted, StoreError):
            raise
        except DebiasbenchError as error:
            return error

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """Show a progress bar inside the context, if the session has no other progress."""
        if not self._interactive:
            yield
            return
        from debiasbench.common.display import Bar, is_interactive

        self._interactive = is_interactive() and speaks()
        with Bar() if self._interactive else Progress() as progress:
            before, self.progress = self.progress, progress
            try:
                yield
            finally:
                self.progress = before

    def task(self, spec: Spec) -> PlacedTask:
        """Return the task of a spec on the device, with texts as the tokens of its model.

        Runs share it. Raises `DataError`.
        """
        choice = spec.dataset
        tokenizer = instance(self.plugins.models, spec.model).tokenizer()
        key = canonical([choice.name, choice.options, tokenizer and dict(tokenizer.key)])
        if key not in self._tasks:
            task = load_task(self.plugins, choice, self.data_root)
            fingerprint = ""
            if tokenizer is not None and isinstance(task.train.x, Texts):
                fingerprint = task.fingerprint()  # of the texts, which all models share
                task = tokenised(task, fingerprint, tokenizer, self.data_root)
            self._make_room()
            self._tasks[key] = PlacedTask(task, self.execution.device, fingerprint=fingerprint)
        return self._tasks[key]

    def _make_room(self) -> None:
        while self._tasks and sum(placed.nbytes for placed in self._tasks.values()) > TASKS:
            del self._tasks[next(iter(self._tasks))]

    def trainer(self, surroundings: Surroundings) -> Trainer:
        """Return what trains the stages of a run: here one after the other."""
        return Sequential.within(surroundings)

    def rehearse(self, spec: Spec, trainer: Trainer, task: PlacedTask | None = None) -> Fitted:
        """Let the method of a spec run with another trainer, which need not train its stages."""
        placed = task or self.task(spec)
        with computing_threads(training_of(spec).threads):
            return fit_spec(spec, self.plugins, placed, trainer, self.predictor(spec))

    def predictor(self, spec: Spec) -> Predictor:
        """Return a predictor that computes in the precision of a spec."""
        return Predictor(self.execution, training_of(spec).precision)


def _installed() -> Plugins:
    """Load the installed plugins, with warnings about those that fail or change settings."""
    plugins = Plugins()
    for message in [*plugins.broken, *plugins.warnings]:
        warnings.warn(str(message), stacklevel=3)
    return plugins


def load_task(plugins: Plugins, choice: Choice, root: Path) -> Task:
    """Return the task of a data set, from the cache if it is there; raises `DataError`."""
    entry = plugins.datasets[choice.name]
    module = entry.load().__module__
    try:
        with contained(str(entry), signals=False):
            task = task_cache.load(choice.name, instance(plugins.datasets, choice), root)
    except DebiasbenchError:
        raise
    except BaseException as error:  # a plugin may raise anything, also SystemExit
        if is_interrupt(error):
            raise
        raise DataError(f"{entry} could not be loaded: {explained(error, module)}") from error
    for name, known in ((task.metric, METRICS), (task.select, RULES)):
        if name not in known:
            raise UnknownNameError(f"metric or selection rule of {entry}", name, known)
    return task
