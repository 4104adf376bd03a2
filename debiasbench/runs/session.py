"""A process's session: its plugins, its folders, its device, and the tasks placed on it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import DataError, DebiasbenchError, UnknownNameError
from debiasbench.common.options import as_dict
from debiasbench.common.progress import Silent
from debiasbench.files import task_cache
from debiasbench.records.metrics import METRICS
from debiasbench.records.selection import RULES
from debiasbench.records.store import Store
from debiasbench.runs.fit import Fitted, first_line, fit_spec
from debiasbench.runs.run import run_spec
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import find_dataset, instance, make_spec, training_of
from debiasbench.training.batch_size import Sizing
from debiasbench.training.distributed import joined
from debiasbench.training.execution import Execution
from debiasbench.training.placed import PlacedTask
from debiasbench.training.predict import Predictor

if TYPE_CHECKING:
    from types import TracebackType

    from debiasbench.common.progress import Progress
    from debiasbench.core.data import Task
    from debiasbench.core.stage import Trainer
    from debiasbench.records.store import Overwrite, Run
    from debiasbench.specs.spec import Choice, Spec
    from debiasbench.training.precision import Compile

TASKS = 1 << 30  # bytes of placed tasks that are kept beside the current one


class Session:
    """Everything that runs of a process share, and `run`.

    `plugins`: builtin and installed ones unless given. `data_root`, `results`: folders of data
    files and of records. `device`: what to train on; "auto" takes an accelerator if there is one.
    `compile`, `deterministic`: see `debiasbench.training.precision.Numerics`.
    `checkpoint_every`: seconds between checkpoints, which take a fiftieth of the time at most.
    `interruptible`: SIGINT, SIGTERM and SIGUSR1 end a run after the current step, with a
    checkpoint and `Interrupted`; for a program's main thread. `progress`: who watches.

    A session is a context manager; leaving it ends the communication of processes that
    `torchrun` started. A session alone in its process needs no leaving.
    """

    def __init__(
        self,
        plugins: Plugins | None = None,
        *,
        data_root: Path | str = "data",
        results: Path | str = "results",
        device: str = "auto",
        compile: Compile = "off",  # noqa: A002 - what torch calls it
        deterministic: bool = False,
        checkpoint_every: float = 60.0,
        interruptible: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.plugins = plugins or Plugins()
        self.data_root, self.store = Path(data_root), Store(Path(results))
        self.checkpoint_every, self.interruptible = checkpoint_every, interruptible
        self.progress: Progress = progress or Silent()
        execution = Execution.on(device, compile=compile, deterministic=deterministic)
        self._exit = ExitStack()
        team = self._exit.enter_context(joined(execution.device))
        self.execution = replace(execution, team=team)
        self._tasks: dict[str, PlacedTask] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release placed tasks, and end communication with other processes."""
        self._tasks = {}
        self._exit.close()

    def watch(self, progress: Progress | None) -> None:
        """Report to `progress` from now on; None reports to nobody."""
        self.progress = progress or Silent()

    # --- specs --------------------------------------------------------------------------------

    def spec(self, method: str, dataset: str = "digits", **choices: Any) -> Spec:
        """Return the resolved spec of a run; `choices` as in `make_spec`.

        `dataset` may be the bare name of imported data.
        """
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

        `precision="auto"` becomes this device's precision. `micro_batch="auto"` becomes the largest
        part of a batch that fits into this device's memory, found by one step of each stage, or
        nothing where whole batches fit.
        """
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
        """Run a spec and store its record, or return the record that exists.

        A run that was killed resumes from its last checkpoint; stages that any run in `results`
        has trained are not trained again. `overwrite`: run again "never", if the record says
        "failed", or "always". `keep_weights`: store the network's weights beside the record,
        those of the data set's selection rule. A loss that becomes NaN ends in a record of status
        "failed". Processes that `torchrun` started train the run together; all return it, the
        first writes it.

        Raises `BusyError` if another process is running the spec, and other errors of
        `debiasbench.common.errors`; then no record is written.
        """
        return run_spec(self, self.resolve(spec), overwrite=overwrite, keep_weights=keep_weights)

    def task(self, choice: Choice) -> PlacedTask:
        """Return a data set's task on the device; tasks are placed once and shared by runs.

        Raises `DataError`.
        """
        key = canonical([choice.name, choice.options])
        if key not in self._tasks:
            task = load_task(self.plugins, choice, self.data_root)
            self._make_room()
            self._tasks[key] = PlacedTask(task, self.execution.device)
        return self._tasks[key]

    def _make_room(self) -> None:
        while self._tasks and sum(placed.nbytes for placed in self._tasks.values()) > TASKS:
            del self._tasks[next(iter(self._tasks))]

    def rehearse(self, spec: Spec, trainer: Trainer, task: PlacedTask | None = None) -> Fitted:
        """Let a spec's method go through its stages with a trainer that need not train them."""
        placed = task or self.task(spec.dataset)
        return fit_spec(spec, self.plugins, placed, trainer, self.predictor(spec))

    def predictor(self, spec: Spec) -> Predictor:
        """Return what evaluates a run: in the precision that it trains in."""
        return Predictor(self.execution, training_of(spec).precision)


def load_task(plugins: Plugins, choice: Choice, root: Path) -> Task:
    """Return the task of a data set, from the cache if it was made before; raises `DataError`."""
    entry = plugins.datasets[choice.name]
    try:
        task = task_cache.load(choice.name, instance(plugins.datasets, choice), root)
    except DebiasbenchError:
        raise
    except Exception as error:
        raise DataError(f"{entry} could not be loaded: {first_line(error)}") from error
    for name, known in ((task.metric, METRICS), (task.select, RULES)):
        if name not in known:
            raise UnknownNameError(f"metric or selection rule of {entry}", name, known)
    return task
