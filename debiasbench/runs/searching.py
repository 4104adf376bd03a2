"""The winner of a search: chosen among its trials when all of them are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError, SearchFailed
from debiasbench.common.wording import counted
from debiasbench.records import search as searches
from debiasbench.records.trial import Trials
from debiasbench.specs.search import Plan
from debiasbench.specs.words import as_text

if TYPE_CHECKING:
    from pathlib import Path

    from debiasbench.records.search import Search
    from debiasbench.records.trial import Trial
    from debiasbench.specs.spec import Spec


def selected(results: Path, plan: Plan, rule: str | None = None) -> tuple[Search, Spec]:
    """Choose the winner as `chosen` does; write the search, and return both."""
    search, winner = chosen(results, plan, rule)
    searches.write(results, search)
    return search, winner


def chosen(results: Path, plan: Plan, rule: str | None = None) -> tuple[Search, Spec]:
    """Return a search whose trials are done, and the spec of its winner.

    `rule`: a selection rule; None is that of the data set. Raises `RecordError` if a trial is
    missing, and `SearchFailed` if all of them failed.
    """
    trials = _trials(results, plan)
    rule = rule or trials[0].task.select
    fixed = {name: as_text(value) for name, value in plan.fixed.items()}
    search = searches.make(trials, plan.space, fixed, rule, plan.sampler)
    if search is None:
        first = trials[0].failure
        raise SearchFailed(
            f"{plan.title}: none of {counted(len(trials), 'trial')} has a result"
            + ("" if first is None else f": {first.message}")
        )
    return search, trials[search.won].spec


def _trials(results: Path, plan: Plan) -> list[Trial]:
    store = Trials(results)
    found = [store.load(spec) for spec in plan.trials]
    trials = [trial for trial in found if trial is not None]
    if len(trials) < len(found):
        missing = [str(number) for number, trial in enumerate(found) if trial is None]
        raise RecordError(
            f"{plan.title}: {counted(len(missing), 'trial')} of {len(found)} "
            f"{'is' if len(missing) == 1 else 'are'} missing ({', '.join(missing)}), so there is "
            "no winner. Run the same command again"
        )
    return trials
