"""The two passes of searches: trials, of which one wins, then the winners with other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import say
from debiasbench.cli.launching import Launch, Launcher
from debiasbench.cli.runs import Runs
from debiasbench.common.errors import RecordError, SearchFailed
from debiasbench.common.wording import counted

if TYPE_CHECKING:
    from pathlib import Path

    from debiasbench.records.store import Overwrite
    from debiasbench.runs.session_options import SessionOptions
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.search import Plan, Planner
    from debiasbench.specs.spec import Spec

    Planned = Sequence[tuple[Plan, Sequence[int]]]  # with the seeds to report


@dataclass(frozen=True)
class Given:
    """What a command of searches was given.

    `rule`: the selection rule; None is that of each data set. `limit`: the largest number of runs
    to begin.
    """

    plugins: Plugins
    options: SessionOptions
    overwrite: Overwrite
    launch: Launch
    rule: str | None = None
    quiet: bool = False
    keep_going: bool = True
    limit: int | None = None


class Searching:
    """Runs searches: first all trials, then the winners with the seeds to report.

    `code`: the exit code. `places`: files of the searches, and of the records that report their
    winners.
    """

    def __init__(self, given: Given, planned: Planned) -> None:
        self._given, self._planned, self._limit = given, planned, given.limit
        self._runs: Runs | None = None
        self._left = 0  # trials that were not attempted here
        self.places: list[Path] = []
        self.code = 0

    def run(self) -> None:
        """Run what has no trial or record yet; print a line for each, and the winners."""
        self._try()
        if (self.code and not self._given.keep_going) or self._limit == 0:
            return
        if self._left and not self._given.launch.wait:  # tasks of a cluster do them
            return
        if reported := self._selected():
            runs = self._attempt(reported, trial=False)
            self.places += runs.records(reported.values())

    def _try(self) -> None:
        """Run all trials."""
        self._attempt(self._trials(), trial=True)

    def preview(self) -> str:
        """Return the preview of the trials that are left, or of the winners' runs if none is."""
        for trial, specs in ((True, self._trials), (False, self._selected)):
            of = specs()
            runs = self._opened(len(of), trial=trial)
            if left := self._first(runs.pending(of)):
                return self._launcher(runs, of).preview(left)
        return ""

    def expected(self) -> tuple[dict[str, Spec], dict[str, Spec]]:
        """Return all trials and runs, and those that would be begun, by title.

        Runs of a winner that is not known yet have the settings of the first trial, which take
        about as long.
        """
        from debiasbench.records.store import Store
        from debiasbench.records.trial import Trials
        from debiasbench.runs.searching import chosen

        results, overwrite = self._given.options.results, self._given.overwrite
        named: dict[str, Spec] = {}
        done: set[str] = set()
        for plan, seeds in self._planned:
            trials = plan.titled()
            tried = {title for title, _ in Trials(results).all_finished(trials, overwrite)}
            reported = plan.reported(plan.trials[0], seeds)
            if len(tried) == len(trials):
                try:
                    _, winner = chosen(results, plan, self._given.rule)
                except (RecordError, SearchFailed):
                    continue  # there is no winner, and nothing is left
                reported = plan.reported(winner, seeds)
                done |= {title for title, _ in Store(results).all_finished(reported, overwrite)}
            named |= trials | reported
            done |= tried
        return named, self._first({t: spec for t, spec in named.items() if t not in done})

    def say_interrupted(self) -> None:
        """Print that the command was interrupted, and the number of runs by outcome."""
        if self._runs is not None:
            self._runs.say_interrupted()

    def close(self) -> None:
        """Close the session of the runs."""
        if self._runs is not None:
            self._runs.close()
            self._runs = None

    def _trials(self) -> dict[str, Spec]:
        return {title: spec for plan, _ in self._planned for title, spec in plan.titled().items()}

    def _opened(self, total: int, *, trial: bool) -> Runs:
        self.close()
        self._runs = Runs(
            self._given.plugins,
            self._given.options,
            self._given.overwrite,
            total,
            quiet=self._given.quiet,
            err=True,
            trial=trial,
        )
        return self._runs

    def _attempt(self, specs: Mapping[str, Spec], *, trial: bool) -> Runs:
        runs = self._opened(len(specs), trial=trial)
        launcher = self._launcher(runs, specs)
        pending = runs.pending(specs)
        first = self._first(pending)
        others = {title: spec for title, spec in pending.items() if title not in first}
        first = runs.loadable(first) if first else {}
        code = 0
        if first and (self._given.keep_going or not runs.tally.codes):
            most = None if self._limit is None else self._limit - len(runs.tally.codes)
            code = launcher.attempt(first, others, most)
        self._sum_up(runs, code)
        return runs

    def _launcher(self, runs: Runs, specs: Mapping[str, Spec]) -> Launcher:
        given = self._given
        return Launcher(
            given.launch,
            runs,
            given.options,
            specs,
            runs.heads(specs),
            given.overwrite,
            given.quiet,
            keep_going=given.keep_going,
        )

    def _first(self, specs: Mapping[str, Spec]) -> dict[str, Spec]:
        """Return the specs that may be begun: all, or as many as the limit allows."""
        return dict(list(specs.items())[: self._limit])

    def _sum_up(self, runs: Runs, code: int = 0) -> None:
        """Print the number of runs by outcome, and keep the exit code of the first failure."""
        say(runs.tally, err=True)
        self._left = runs.tally.left
        if self._limit is not None:
            self._limit -= runs.tally.trained + len(runs.tally.codes)
        self.code = self.code or next(iter(runs.tally.codes), code)

    def _selected(self) -> dict[str, Spec]:
        """Choose the winners; return their specs with the seeds to report, by title."""
        from debiasbench.records.trial import FOLDER
        from debiasbench.runs.searching import selected
        from debiasbench.specs.words import label

        reported: dict[str, Spec] = {}
        for plan, seeds in self._planned:
            try:
                search, winner = selected(self._given.options.results, plan, self._given.rule)
            except (RecordError, SearchFailed) as error:
                say(f"Error: {error}", err=True)
                self.code = self.code or error.exit_code
                continue
            self.places.append(self._given.options.results / FOLDER / search.name)
            values = label(plan.values(winner))
            say(
                f"{plan.title}: trial {search.won} is the best of "
                f"{counted(len(search.trials), 'trial')} under {search.rule}"
                + (f" ({values})" if values else ""),
                err=True,
            )
            reported |= plan.reported(winner, seeds)
        return reported


class Asked(Searching):
    """Runs searches whose trials another sampler draws, each after the results of those before."""

    def __init__(
        self,
        given: Given,
        planners: Sequence[Planner],
        seeds: Sequence[int],
        *,
        trials: int,
        sampler: str,
    ) -> None:
        from debiasbench.runs.asking import check_sampler

        check_sampler(sampler)
        if given.launch != Launch():
            raise click.UsageError("--sampler draws one trial after the other, here")
        super().__init__(given, ())
        self._planners, self._seeds = planners, seeds
        self._number, self._sampler = trials, sampler

    def _try(self) -> None:
        titles = [f"{each.method} trial={k}" for each in self._planners for k in self._numbers]
        runs = self._opened(len(titles), trial=True)
        heads = runs.heads(titles)
        plans = [self._asked(planner, runs, heads) for planner in self._planners]
        self._sum_up(runs)
        self._planned = [(plan, self._seeds) for plan in plans if plan is not None]

    @property
    def _numbers(self) -> range:
        return range(self._number)

    def _asked(self, planner: Planner, runs: Runs, heads: Mapping[str, str]) -> Plan | None:
        """Run the trials of a search; return it, or None if one of them has no result."""
        from debiasbench.records.trial import Trials
        from debiasbench.runs.asking import Asking

        store = Trials(self._given.options.results)
        asking = Asking(planner, self._sampler, self._given.rule)
        specs = []
        for number in self._numbers:
            spec = asking.next()
            title = f"{planner.method} trial={number}"
            runs.attempt_all(runs.pending({title: spec}), heads, 1)
            trial = store.load(spec)
            if trial is None:
                say(f"Error: {title} has no result, so there is no winner", err=True)
                return None
            asking.tell(trial)
            specs.append(spec)
        return planner.plan(specs, sampler=self._sampler)
