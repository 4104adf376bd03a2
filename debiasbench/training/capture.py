"""Which steps may be captured without a trial: those of code that this package knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.training.doubt import Doubts
from debiasbench.training.graph import Graph, Replays
from debiasbench.training.identity import KNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from debiasbench.core.objective import Objective
    from debiasbench.core.stage import Stage
    from debiasbench.training.repeatable import Repeatable
    from debiasbench.training.step import Step


def replays(
    steps: Sequence[Step],
    stages: Sequence[Stage],
    new_graph: Callable[[], Graph] | None,
    contain: Sequence[Callable[[], AbstractContextManager[None]]] | None = None,
) -> Replays:
    """Return what computes the steps of stages that train at once.

    Objectives that declare to be `capturable`, with networks and components of known packages, are
    captured directly. All others are observed in the first steps, and compared, unless they refuse.
    """
    refused = any(stage.objective.capturable is None for stage in stages)
    made = Replays(
        steps,
        new_graph,
        trusted=all(known(stage) for stage in stages),
        owner=type(stages[0].objective).__name__,
        doubts=lambda: Doubts([_with_python_state(stage) for stage in stages]),
        contain=contain,
        also_eager=any(stage.components for stage in stages),  # updates
    )
    if refused and new_graph is not None:
        made.reason = f"{made.owner} declares that its steps cannot be replayed"
    return made


def evaluated(
    evaluation: Repeatable, objective: Objective, new_graph: Callable[[], Graph] | None
) -> Replays:
    """Return what computes the evaluation of an objective on a split."""
    return Replays(
        [evaluation],
        None if objective.capturable is None else new_graph,
        trusted=_known_objective(objective),
        owner=f"the evaluation of {type(objective).__name__}",
        doubts=lambda: Doubts([[objective]]),
    )


def known(stage: Stage) -> bool:
    """Return whether all code of a step is known to do the same in every step."""
    augment = stage.view.prepare.augment
    parts = [*stage.components, *([] if augment is None else [augment])]
    return _known_objective(stage.objective) and all(map(_is_known, parts))


def _known_objective(objective: Objective) -> bool:
    """Return whether the class of an objective, not a parent, declares to be `capturable`.

    The modules in it must be of known packages.
    """
    declares = bool(vars(type(objective)).get("capturable", False))
    return declares and all(_is_known(m) for m in objective.modules() if m is not objective)


def _is_known(part: object) -> bool:
    return type(part).__module__.partition(".")[0] in KNOWN


def _with_python_state(stage: Stage) -> list[object]:
    return [stage.objective, *(c for c in stage.components if not _is_known(c))]
