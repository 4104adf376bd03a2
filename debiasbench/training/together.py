"""`train_together`: trains stages of several runs at once, so that a large device is busy.

Stages of one rhythm take each step at the same time: on a GPU all of them are replayed as one
graph, in which every stage has a stream of its own. Everything else, such as validation, topology
updates and checkpoints, is done one stage after the other between two steps. On a CPU the stages
take turns. A stage that fails leaves the others untouched, and every result is that of a stage
that is trained alone.
"""

from __future__ import annotations

import traceback
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import Interrupted, OptionError
from debiasbench.common.foreign import is_interrupt
from debiasbench.common.memory import is_out_of_memory
from debiasbench.common.progress import Progress
from debiasbench.core.stage import Trained
from debiasbench.training.batch_size import out_of_memory
from debiasbench.training.capture import replays
from debiasbench.training.device import computing_threads

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from debiasbench.common.locks import Wait
    from debiasbench.training.graph import Replays
    from debiasbench.training.stage_training import StageTraining


def rhythm(training: StageTraining) -> str:
    """Return a text that is equal for stages that take the same steps at the same times."""
    stage, batches = training.stage, training.stage.batches
    objective = type(stage.objective)
    # a stage that cannot be replayed must not keep others from it
    apart = None if training.known else f"{objective.__module__}.{objective.__qualname__}"
    return canonical(
        [
            [asdict(training.numerics), apart, stage.objective.capturable is None],
            [stage.steps, len(batches), batches.largest, batches.smallest],
            [stage.settings.threads, stage.settings.micro_batch, stage.follows],
        ]
    )


def train_together(
    trainings: Sequence[StageTraining],
    progress: Progress | None = None,
    *,
    wait: Wait = "always",
    contain: bool = False,
) -> list[Trained | BaseException]:
    """Train stages of one rhythm; return the result or the error of each.

    `progress`: of all of them. `wait`: what to do while another process trains one of the stages:
    "never" returns `LockHeldError` for it. `contain`: whether to undo what the code of others does
    to the process; whoever calls the code of a method has that done already.
    """
    members = [_Member(training, contain=contain) for training in trainings]
    first = trainings[0]
    progress = progress or Progress()
    with ExitStack() as stack:
        stack.enter_context(computing_threads(first.stage.settings.threads))
        stack.enter_context(first.numerics.applied())
        for member in members:
            stack.enter_context(member.training.numerics.compiled(member.training.stage.objective))
        if len(members) == 1 and not contain:  # it never gives way to another
            stack.enter_context(first.run.random.active())
        for member in members:
            stack.callback(member.close)
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
                for computed in groups.values():
                    computed.release()
                groups.clear()
                groups[key] = _replays(group)
            _take(group, groups[key])
            progress.advance(len(group))
    finally:
        progress.finish()
        for computed in groups.values():
            computed.release()


def _replays(group: Sequence[_Member]) -> Replays:
    trainings = [member.training for member in group]
    first = trainings[0]
    contain = [training.contained for training in trainings] if group[0].contain else None
    made = replays(
        [training.run.step for training in trainings],
        [training.stage for training in trainings],
        first.graph if first.numerics.graphs else None,
        contain=contain,
    )
    for training in trainings:
        training.run.computed_by = made
    return made


def _take(group: Sequence[_Member], computed: Replays) -> None:
    """Take one step of each member."""
    steps = [member.training.run.step for member in group]
    shapes = {step.shape for step in steps}
    eager = len(shapes) > 1 or any(step.eager for step in steps)
    errors: Mapping[int, BaseException] = computed.compute(steps[0].shape, eager=eager)
    for position, member in enumerate(group):
        member.advance(errors.get(position))


class _Member:
    """One of the stages: its coroutine, and its outcome once it has one.

    `contain`: see `train_together`.
    """

    def __init__(self, training: StageTraining, *, contain: bool) -> None:
        self.training, self.contain = training, contain
        self._turns: Generator[None, None, Trained] | None = None
        self.outcome: Trained | BaseException | None = None

    @property
    def step(self) -> int:
        """The number of steps taken so far."""
        return self.training.run.at.step

    def begin(self, wait: Wait) -> None:
        """Begin or resume the stage, up to its next step."""
        self._turns = self.training.turns(wait)
        self.advance()

    def advance(self, error: BaseException | None = None) -> None:
        """Continue after a step, which may have failed, up to the next one."""
        assert self._turns is not None
        try:
            with self.training.contained() if self.contain else nullcontext():
                if error is None:
                    next(self._turns)
                else:
                    self._turns.throw(error)
        except StopIteration as end:
            self.outcome = end.value
        except BaseException as raised:  # a plugin may raise anything, also SystemExit
            if is_interrupt(raised) and not isinstance(raised, Interrupted):
                raise
            self.outcome = raised

    def close(self) -> None:
        """End a coroutine that has not ended, after an error outside of it."""
        if self._turns is not None:
            self._turns.close()

    def finished(self) -> Trained | BaseException:
        """Return the outcome; an error of memory names the batch size that would fit."""
        outcome, self.outcome = self.outcome, None
        assert outcome is not None
        training = self.training
        if isinstance(outcome, Trained):
            return outcome
        if "deterministic implementation" in str(outcome):
            return OptionError(
                f"--deterministic: {str(outcome).partition('.')[0]}. Run without --deterministic"
            )
        if not isinstance(outcome, Exception) or not is_out_of_memory(outcome):
            return outcome
        # the memory of the stage must be free for the trial
        traceback.clear_frames(outcome.__traceback__)
        del outcome
        training.release()
        return out_of_memory(training.stage, training.execution)
