"""`train_together`: trains stages of several runs at once, so that a large device is busy.

Stages of one rhythm take each step at the same time: on a GPU all of them are replayed as one
graph, in which every stage has a stream of its own. Everything else, such as validation, topology
updates and checkpoints, is done one stage after the other between two steps. On a CPU the stages
take turns. A stage that fails leaves the others untouched, and every result is that of a stage
that is trained alone.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import OptionError
from debiasbench.common.locks import LockHeldError
from debiasbench.common.memory import is_out_of_memory
from debiasbench.common.progress import Progress
from debiasbench.core.stage import Trained
from debiasbench.training.batch_size import out_of_memory
from debiasbench.training.capture import replays
from debiasbench.training.device import computing_threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from debiasbench.common.locks import Wait
    from debiasbench.core.stage import Stage
    from debiasbench.training.execution import Execution
    from debiasbench.training.graph import Replays
    from debiasbench.training.stage_training import StageTraining


def rhythm(training: StageTraining) -> str:
    """Return a text that is equal for stages that take the same steps at the same times."""
    stage, batches = training.stage, training.stage.batches
    return canonical(
        [
            asdict(training.numerics),
            [stage.steps, len(batches), batches.largest, batches.smallest],
            [stage.settings.threads, stage.settings.micro_batch, stage.follows],
        ]
    )


def train_together(
    trainings: Sequence[StageTraining], progress: Progress | None = None, *, wait: Wait = "always"
) -> list[Trained | Exception]:
    """Train stages of one rhythm; return the result or the error of each.

    `progress`: of all of them. `wait`: what to do while another process trains one of the stages:
    "never" returns `LockHeldError` for it.
    """
    members = [_Member(training) for training in trainings]
    first = trainings[0]
    progress = progress or Progress()
    with ExitStack() as stack:
        stack.enter_context(computing_threads(first.stage.settings.threads))
        stack.enter_context(first.numerics.applied())
        for member in members:
            stack.enter_context(member.training.numerics.compiled(member.training.stage.objective))
        if len(members) == 1:  # it never gives way to another
            stack.enter_context(first.run.random.active())
        for member in members:
            member.begin(wait)
        running = [member for member in members if member.outcome is None]
        for member in running:
            member.training.run.together = len(running)
        _train(running, progress)
    return [member.finished() for member in members]


def _train(members: Sequence[_Member], progress: Progress) -> None:
    """Take all steps of members that have begun."""
    groups: dict[tuple[int, ...], Replays] = {}
    if not members:
        return
    name = members[0].training.stage.name
    progress.start(name, sum(m.training.stage.steps - m.step for m in members))
    try:
        while running := [member for member in members if member.outcome is None]:
            # after a restart, some may be a few steps behind
            least = min(member.step for member in running)
            group = [member for member in running if member.step == least]
            key = tuple(map(id, group))
            if key not in groups:
                groups.clear()  # the memory of their graphs
                groups[key] = _replays(group)
            _take(group, groups[key])
            progress.advance(len(group))
    finally:
        progress.finish()
        for member in members:
            member.close()


def _replays(group: Sequence[_Member]) -> Replays:
    trainings = [member.training for member in group]
    first = trainings[0]
    made = replays(
        [training.run.step for training in trainings],
        [training.stage for training in trainings],
        first.graph if first.numerics.graphs else None,
    )
    for training in trainings:
        training.run.computed_by = made
    return made


def _take(group: Sequence[_Member], computed: Replays) -> None:
    """Take one step of each member."""
    steps = [member.training.run.step for member in group]
    sizes = {step.samples for step in steps}
    eager = len(sizes) > 1 or any(step.eager for step in steps)
    errors: Mapping[int, Exception] = computed.compute(steps[0].samples, eager=eager)
    for position, member in enumerate(group):
        member.advance(errors.get(position))


@contextmanager
def explained(stage: Stage, execution: Execution) -> Iterator[None]:
    """If memory runs out inside the context, raise an error with the batch size that would fit."""
    try:
        yield
        return
    except (MemoryError, RuntimeError) as error:
        if "deterministic implementation" in str(error):
            raise OptionError(
                f"--deterministic: {str(error).partition('.')[0]}. Run without --deterministic"
            ) from error
        if not is_out_of_memory(error):
            raise
    # outside the handler, the memory of the stage is free
    raise out_of_memory(stage, execution)


class _Member:
    """One of the stages: its coroutine, and its outcome once it has one."""

    def __init__(self, training: StageTraining) -> None:
        self.training = training
        self.outcome: Trained | Exception | None = None

    @property
    def step(self) -> int:
        """The number of steps taken so far."""
        return self.training.run.at.step

    def begin(self, wait: Wait) -> None:
        """Begin or resume the stage, up to its next step."""
        self._turns = self.training.turns(wait)
        self.advance()

    def advance(self, error: Exception | None = None) -> None:
        """Continue after a step, which may have failed, up to the next one."""
        try:
            if error is None:
                next(self._turns)
            else:
                self._turns.throw(error)
        except StopIteration as end:
            self.outcome = end.value
        except LockHeldError as held:
            self.outcome = held
        except Exception as raised:  # a plugin may raise anything
            self.outcome = raised

    def close(self) -> None:
        """End a coroutine that has not ended, after an error outside of it."""
        self._turns.close()

    def finished(self) -> Trained | Exception:
        """Return the outcome; memory that ran out is explained when the others are done."""
        outcome = self.outcome
        assert outcome is not None
        if isinstance(outcome, Trained):
            return outcome
        try:
            with explained(self.training.stage, self.training.execution):
                raise outcome
        except Exception as error:
            return error
