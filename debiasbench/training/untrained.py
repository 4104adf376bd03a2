"""The result of a stage that is looked at, tried or timed, but not trained."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from debiasbench.core.stage import Checkpoint, OptimizerState, Trained
from debiasbench.records.selection import RULES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from debiasbench.core.stage import Stage


def untrained(
    stage: Stage,
    *,
    densities: Mapping[str, float] | None = None,
    masks: Mapping[str, Tensor] | None = None,
) -> Trained:
    """Return the objective as it is, with everything that a method may ask of a trained stage.

    Each selection rule keeps the current weights, and an optimizer that was to be kept has no
    state.
    """
    state = stage.objective.state_dict()
    kept = {rule: Checkpoint(1, math.nan, state) for rule in RULES} if stage.select else {}
    return Trained(
        stage.objective,
        kept,
        densities=densities or {},
        masks=masks or {},
        optimizer=OptimizerState(stage.settings.optimizer, {}) if stage.keep_optimizer else None,
    )
