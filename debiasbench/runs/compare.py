"""Compare methods on one data set: run what has no record, and return a data frame."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import DebiasbenchError, OptionError, UnknownNameError
from debiasbench.common.wording import shown
from debiasbench.leaderboard.results import frame
from debiasbench.records.selection import RULES
from debiasbench.runs.sweep import in_batches
from debiasbench.specs.grid import expand
from debiasbench.specs.maker import Maker
from debiasbench.specs.resolve import SEEDS, find_dataset
from debiasbench.specs.words import as_text, combined, label, read_sparse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd

    from debiasbench.core.method import Method
    from debiasbench.core.settings import AnyPrecision
    from debiasbench.records.record import Record
    from debiasbench.records.store import Run
    from debiasbench.runs.session import Session
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec


@dataclass(frozen=True)
class Comparison:
    """The runs of a comparison: methods, each with a grid of options, and seeds.

    `sparse`: as in `--sparse`, such as "rigl:density=0.05". `settings`: names as in `--set` -> list
    of values, such as `{"NAME.density": [0.01, 0.05], "train.epochs": [10]}`.
    """

    methods: Sequence[str]
    seeds: Sequence[int]
    dataset: str = "digits"
    model: str | None = None
    sparse: str | None = None
    settings: Mapping[str, Sequence[object]] | None = None

    def specs(self, plugins: Plugins, root: Path, precision: AnyPrecision) -> dict[str, Spec]:
        """Return the specs by a title that distinguishes them, such as "NAME density=0.05 seed=1".

        Seeds change fastest. A spec that several values stand for, such as 0.1 and 0.10, occurs
        once. Raises `OptionError` and `UnknownNameError`.
        """
        if not self.methods or not self.seeds:
            raise OptionError("A comparison needs at least one method and one seed")
        seeds = [_seed(seed) for seed in self.seeds]
        names = {"dataset": self.dataset, "model": self.model}
        common = combined(
            [{k: v for k, v in names.items() if v is not None}, read_sparse(self.sparse)]
        )
        grids = expand(
            self.settings or {},
            list(self.methods),
            plugins,
            repeats=len(seeds),
            parts={**common, "dataset": find_dataset(plugins, self.dataset, root)[0]},
        )
        maker = Maker(plugins, lambda name: find_dataset(plugins, name, root), precision)
        specs: dict[str, Spec] = {}
        for method, grid in grids.items():
            varying = {name for words in grid for name in words if words[name] != grid[0][name]}
            for words in grid:
                own = {name: value for name, value in words.items() if name in varying}
                for seed in seeds:
                    spec = maker.new(combined([{"method": method, "seed": seed}, common, words]))
                    if spec is not None:
                        specs[f"{method} {label({**own, 'seed': seed})}"] = spec
        return specs


def _seed(value: Any) -> int:
    try:
        seed = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        seed = -1
    if seed not in SEEDS:
        raise OptionError(f"Seed {shown(value)} is not a whole number from 0 to {SEEDS[-1]}")
    return seed


def compare(
    methods: str | type[Method] | Iterable[str | type[Method]],
    *,
    dataset: str = "digits",
    seeds: Iterable[int] = range(3),
    model: str | None = None,
    sparse: str | None = None,
    settings: Mapping[str, object] | None = None,
    select: str | None = None,
    together: int = 1,
    session: Session | None = None,
    **session_arguments: Any,
) -> pd.DataFrame:
    """Run methods on a data set with several seeds, and return a row for each run.

    Records are stored, and a run with a record is not run again, so the same call continues after
    an interruption.

    `methods`: names, see `debiasbench list methods`, or classes, which need not be registered.
    `model`: the network; by default the recommendation of the data set.
    `sparse`: a sparse training algorithm for all stages, such as "rigl:density=0.05".
    `settings`: names as in `debiasbench run --set` -> a value, or a list of values to compare, such
    as `{"NAME.density": [0.01, 0.05], "train.epochs": 10}`. For an option that takes a list, write
    a list of lists.
    `select`: the selection rule whose outcome is returned; by default that of the data set.
    `together`: number of runs that are trained at once; see `Session.run_many`.
    `session`: the session to use; by default a new one with `session_arguments`, the arguments of
    `debiasbench.Session`, such as `results="results"`, `data_root="data"`, `device="auto"`.

    The rows have the columns of `debiasbench.frame`: method, seed, options such as
    "method.density", accuracies in [0, 1] ("unbiased", "worst_group", ...) and cost. A run that
    failed has a row with `failure`. Raises `OptionError`, `UnknownNameError`, and all errors of
    `Session.run`.
    """
    if not isinstance(seeds, Iterable):
        raise OptionError(f"seeds={seeds!r}: give several seeds, such as range({seeds!r})")
    if select is not None and select not in RULES:
        raise UnknownNameError("selection rule", select, RULES)
    given = [methods] if isinstance(methods, (str, type)) else list(methods)
    lists = {name: _values(name, value) for name, value in (settings or {}).items()}
    with _session(session, session_arguments) as open_session:
        names = [open_session.plugins.methods.name_of(method) for method in given]
        chosen = Comparison(names, list(seeds), dataset, model, sparse, lists)
        precision = open_session.execution.numerics().precision
        specs = chosen.specs(open_session.plugins, open_session.data_root, precision)
        records = [run.record for run in _runs(open_session, specs, together)]
    return _selected(records, select)


def _runs(session: Session, specs: Mapping[str, Spec], together: int) -> Iterator[Run]:
    """Run specs, some at once; raises the first error when the runs beside it have ended."""
    if isinstance(together, bool) or not isinstance(together, int) or together < 1:
        raise OptionError(f"together={shown(together)}: must be a whole number, 1 or more")
    if together == 1:
        yield from (session.run(spec) for spec in specs.values())
        return
    done: dict[str, Run] = {}
    for batch in in_batches(specs, lambda _: together):
        for title, outcome in zip(batch, session.run_many(batch.values()), strict=True):
            if isinstance(outcome, DebiasbenchError):
                raise outcome
            done[title] = outcome
    yield from (done[title] for title in specs)


def _values(name: str, value: object) -> list[object]:
    values = [value]
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        values = list(value)
    for each in values:
        try:
            as_text(each)
        except (TypeError, ValueError, RecursionError) as error:
            raise OptionError(
                f"{name}={shown(each)}: must be a number, a text, True, False, None, or a list of "
                "these"
            ) from error
    return values


@contextmanager
def _session(session: Session | None, arguments: Mapping[str, Any]) -> Iterator[Session]:
    """Yield the given session, or a new one with `arguments`."""
    from debiasbench.runs.session import Session

    if session is not None:
        if arguments:
            name = next(iter(arguments))
            raise OptionError(
                f"compare: {name} cannot be combined with session: set it in that session"
            )
        yield session
        return
    try:
        opened = Session(**arguments)
    except TypeError as error:
        raise OptionError(f"compare: {error}") from error
    with opened:
        yield opened


def _selected(records: Sequence[Record], select: str | None) -> pd.DataFrame:
    """Return the rows of one selection rule: `select`, or that of each record's data set."""
    rules = {record.id: select or record.task.select for record in records}
    rows = frame(records)
    chosen = rows[rows["rule"] == rows["id"].map(rules)]
    return chosen.reset_index(drop=True)
