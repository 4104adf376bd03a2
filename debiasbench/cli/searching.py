"""The two passes of searches: trials, of which one wins, then the winners with other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from debiasbench.cli.common import say
from debiasbench.cli.runs import Runs
from debiasbench.common.errors import RecordError, SearchFailed
from debiasbench.common.wording import counted

if TYPE_CHECKING:
    from pathlib import Path

    from debiasbench.cli.session import SessionOptions
    from debiasbench.records.store import Overwrite
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.search import Plan
    from debiasbench.specs.spec import Spec


class Searching:
    """Runs searches: first all trials, then the winners with the seeds to report.

    `rule`: the selection rule; None is that of each data set. `code`: the exit code.
    """

    def __init__(
        self,
        plugins: Plugins,
        options: SessionOptions,
        overwrite: Overwrite,
        plans: Sequence[Plan],
        seeds: Sequence[int],
        *,
        rule: str | None,
        together: int | Literal["auto"],
        quiet: bool,
        keep_going: bool = True,
    ) -> None:
        self._plugins, self._options, self._overwrite = plugins, options, overwrite
        self._plans, self._seeds, self._rule = plans, seeds, rule
        self._together, self._quiet, self._keep_going = together, quiet, keep_going
        self._runs: Runs | None = None
        self._places: list[Path] = []
        self.code = 0

    def run(self) -> None:
        """Run what has no trial or record yet; print a line for each, and the winners."""
        self._attempt({t: s for plan in self._plans for t, s in plan.titled().items()}, trial=True)
        if self.code and not self._keep_going:
            return
        if reported := self._selected():
            runs = self._attempt(reported, trial=False)
            self._places += runs.records(reported.values())

    def places(self) -> list[Path]:
        """Return the files of the searches and of the records that report their winners."""
        return self._places

    def say_interrupted(self) -> None:
        """Print that the command was interrupted, and the number of runs by outcome."""
        if self._runs is not None:
            self._runs.say_interrupted()

    def close(self) -> None:
        """Close the session of the runs."""
        if self._runs is not None:
            self._runs.close()
            self._runs = None

    def _attempt(self, specs: Mapping[str, Spec], *, trial: bool) -> Runs:
        self.close()
        runs = self._runs = Runs(
            self._plugins,
            self._options,
            self._overwrite,
            len(specs),
            quiet=self._quiet,
            err=True,
            trial=trial,
        )
        heads, pending = runs.heads(specs), runs.pending(specs)
        runs.attempt_all(
            runs.loadable(pending) if pending else {},
            heads,
            self._together,
            keep_going=self._keep_going,
        )
        say(runs.tally, err=True)
        self.code = self.code or next(iter(runs.tally.codes), 0)
        return runs

    def _selected(self) -> dict[str, Spec]:
        """Choose the winners; return their specs with the seeds to report, by title."""
        from debiasbench.records.trial import FOLDER
        from debiasbench.runs.searching import selected
        from debiasbench.specs.words import label

        reported: dict[str, Spec] = {}
        for plan in self._plans:
            try:
                search, winner = selected(self._options.results, plan, self._rule)
            except (RecordError, SearchFailed) as error:
                say(f"Error: {error}", err=True)
                self.code = self.code or error.exit_code
                continue
            self._places.append(self._options.results / FOLDER / search.name)
            values = label(plan.values(winner))
            say(
                f"{plan.method}: trial {search.won} is the best of "
                f"{counted(len(search.trials), 'trial')} under {search.rule}"
                + (f" ({values})" if values else ""),
                err=True,
            )
            reported |= plan.reported(winner, self._seeds)
        return reported
