"""Searches whose trials Optuna draws, one after the other; for one's own use, not for tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import OptionError, UnknownNameError
from debiasbench.common.seeds import derive
from debiasbench.records.search import criterion, score

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.common.space import Space
    from debiasbench.records.trial import Trial
    from debiasbench.specs.search import Planner
    from debiasbench.specs.spec import Spec

SAMPLERS = {"optuna:tpe": "TPESampler", "optuna:random": "RandomSampler"}


def check_sampler(name: str) -> None:
    """Raise `UnknownNameError` for an unknown sampler, and `OptionError` if Optuna is missing."""
    if name not in SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)
    _optuna()


class Asking:
    """Asks for the specs of trials, and is told their results; the first has the defaults.

    Equal results of the trials before give equal values, so a search that is continued asks again
    for the trials that there are. `rule`: the selection rule, None for that of the data set.
    """

    def __init__(self, planner: Planner, sampler: str, rule: str | None) -> None:
        optuna = _optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seed = derive(0, "search", planner.name) % 2**32
        self._study = optuna.create_study(
            direction="maximize", sampler=getattr(optuna.samplers, SAMPLERS[sampler])(seed=seed)
        )
        self._planner, self._rule = planner, rule
        self._spaces = {name: _distribution(one) for name, one in planner.space.items()}
        self._number = 0
        self._asked: Any = None  # None for the defaults

    def next(self) -> Spec:
        """Return the spec of the next trial; `tell` its result before the one after it."""
        values: dict[str, object] = {}
        if self._number:
            self._asked = self._study.ask(self._spaces)
            values = {
                name: _value(self._planner.space[name], drawn)
                for name, drawn in self._asked.params.items()
            }
        spec = self._planner.spec(self._number, values)
        self._number += 1
        return spec

    def tell(self, trial: Trial) -> None:
        """Tell the result of the trial that was asked for last."""
        from optuna.trial import TrialState, create_trial

        rule = self._rule or trial.task.select
        value = score(trial, rule, criterion(rule, trial.supervision, trial.task.metric))
        if self._asked is not None:
            if math.isnan(value):
                self._study.tell(self._asked, state=TrialState.FAIL)
            else:
                self._study.tell(self._asked, value)
        elif (params := self._defaults(trial.spec)) is not None and not math.isnan(value):
            known = create_trial(params=params, distributions=self._spaces, value=value)
            self._study.add_trial(known)

    def _defaults(self, spec: Spec) -> dict[str, Any] | None:
        """Return the defaults as Optuna knows values; None if one is outside of its space."""
        of: Mapping[str, Mapping[str, Any]] = {
            "method": spec.method.options,
            "train": spec.training,
        }
        params = {}
        for name, space in self._planner.space.items():
            scope, _, option = name.partition(".")
            value = of[scope].get(option)
            if space.kind == "choice":
                if value not in space.values:
                    return None
                params[name] = space.values.index(value)
            elif value is None or not space.values[0] <= value <= space.values[1]:
                return None
            else:
                params[name] = value
        return params


def _value(space: Space, drawn: Any) -> object:
    return space.values[drawn] if space.kind == "choice" else space.number(drawn)


def _distribution(space: Space) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if space.kind == "choice":  # by number, since Optuna takes no lists
        return CategoricalDistribution(range(len(space.values)))
    low, high = space.values
    kind = IntDistribution if space.whole else FloatDistribution
    return kind(low, high, log=space.kind == "log")


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise OptionError(
            '--sampler needs Optuna, which is not installed: pip install "debiasbench[search]"'
        ) from error
    return optuna
