"""The two passes of searches: trials, of which one wins, then the winners with other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

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
    from debiasbench.specs.search import Plan
    from debiasbench.specs.spec import Spec

    Planned = Sequence[tuple[Plan, Sequence[int]]]  # with the seeds to report


class Searching:
    """Runs searches: first all trials, then the winners with the seeds to report.

    `rule`: the selection rule; None is that of each data set. `limit`: the largest number of runs
    to begin. `code`: the exit code. `places`: files of the searches, and of the records that report
    their winners.
    """

    def __init__(
        self,
        plugins: Plugins,
        options: SessionOptions,
        overwrite: Overwrite,
        planned: Planned,
        launch: Launch,
        *,
        rule: str | None,
        quiet: bool,
        keep_going: bool = True,
        limit: int | None = None,
    ) -> None:
        self._plugins, self._options, self._overwrite = plugins, options, overwrite
        self._planned, self._launch, self._rule = planned, launch, rule
        self._quiet, self._keep_going, self._limit = quiet, keep_going, limit
        self._runs: Runs | None = None
        self.places: list[Path] = []
        self.code = 0

    def run(self) -> None:
        """Run what has no trial or record yet; print a line for each, and the winners."""
        self._attempt(self._trials(), trial=True)
        if (self.code and not self._keep_going) or self._limit == 0:
            return
        if reported := self._selected():
            runs = self._attempt(reported, trial=False)
            self.places += runs.records(reported.values())

    def pending(self) -> list[str]:
        """Return the lines of the trials that must be run, or of the runs that report winners."""
        for trial, specs in ((True, self._trials), (False, self._selected)):
            of = specs()
            runs = self._opened(len(of), trial=trial)
            heads, left = runs.heads(of), runs.pending(of)
            if left:
                return [heads[title] for title in left]
        return []

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
            self._plugins,
            self._options,
            self._overwrite,
            total,
            quiet=self._quiet,
            err=True,
            trial=trial,
        )
        return self._runs

    def _attempt(self, specs: Mapping[str, Spec], *, trial: bool) -> Runs:
        runs = self._opened(len(specs), trial=trial)
        heads, pending = runs.heads(specs), runs.pending(specs)
        titles = list(pending)[: self._limit]
        first = {title: pending[title] for title in titles}
        others = {title: spec for title, spec in pending.items() if title not in first}
        first = runs.loadable(first) if first else {}
        launcher = Launcher(
            self._launch,
            runs,
            self._options,
            specs,
            heads,
            self._overwrite,
            self._quiet,
            keep_going=self._keep_going,
        )
        code = 0
        if first and (self._keep_going or not runs.tally.codes):
            most = None if self._limit is None else self._limit - len(runs.tally.codes)
            code = launcher.attempt(first, others, most)
        say(runs.tally, err=True)
        if self._limit is not None:
            self._limit -= runs.tally.trained + len(runs.tally.codes)
        self.code = self.code or next(iter(runs.tally.codes), code)
        return runs

    def _selected(self) -> dict[str, Spec]:
        """Choose the winners; return their specs with the seeds to report, by title."""
        from debiasbench.records.trial import FOLDER
        from debiasbench.runs.searching import selected
        from debiasbench.specs.words import label

        reported: dict[str, Spec] = {}
        for plan, seeds in self._planned:
            try:
                search, winner = selected(self._options.results, plan, self._rule)
            except (RecordError, SearchFailed) as error:
                say(f"Error: {error}", err=True)
                self.code = self.code or error.exit_code
                continue
            self.places.append(self._options.results / FOLDER / search.name)
            values = label(plan.values(winner))
            say(
                f"{plan.title}: trial {search.won} is the best of "
                f"{counted(len(search.trials), 'trial')} under {search.rule}"
                + (f" ({values})" if values else ""),
                err=True,
            )
            reported |= plan.reported(winner, seeds)
        return reported
