"""Compare methods on one data set: run what has no record, and return a data frame."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import OptionError
from debiasbench.leaderboard.frame import frame
from debiasbench.specs.grid import expand
from debiasbench.specs.resolve import find_dataset, make_spec
from debiasbench.specs.words import arguments, combined, label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from debiasbench.core.settings import Precision
    from debiasbench.records.record import Record
    from debiasbench.runs.session import Session
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec


@dataclass(frozen=True)
class Comparison:
    """The runs of a comparison: methods, each with a grid of options, and seeds.

    `settings`: names as in `--set` -> list of values, such as
    `{"rest.density": [0.01, 0.05], "train.epochs": [10]}`.
    """

    methods: Sequence[str]
    seeds: Sequence[int]
    dataset: str = "digits"
    model: str | None = None
    sparse: str | None = None
    settings: Mapping[str, Sequence[object]] | None = None

    def specs(self, plugins: Plugins, root: Path, precision: Precision) -> dict[str, Spec]:
        """Return the specs by a title that distinguishes them, such as "rest density=0.05 seed=1".

        Seeds change fastest. Raises `OptionError` and `UnknownNameError`.
        """
        if not self.methods or not self.seeds:
            raise OptionError("A comparison needs at least one method and one seed")
        grids = expand(self.settings or {}, list(self.methods), plugins, repeats=len(self.seeds))
        names = {"dataset": self.dataset, "model": self.model, "sparse": self.sparse}
        common = {name: value for name, value in names.items() if value is not None}
        specs: dict[str, Spec] = {}
        for method, grid in grids.items():
            for words in grid:
                for seed in self.seeds:
                    complete = combined([{"method": method, "seed": seed}, common, words])
                    keywords = arguments(
                        complete, plugins, lambda name: find_dataset(plugins, name, root)
                    )
                    title = f"{method} {label({**words, 'seed': seed})}"
                    specs[title] = make_spec(plugins, **keywords, precision=precision)
        return specs


def compare(
    methods: str | Iterable[str],
    *,
    dataset: str = "digits",
    seeds: Iterable[int] = range(3),
    model: str | None = None,
    sparse: str | None = None,
    settings: Mapping[str, object] | None = None,
    select: str | None = None,
    session: Session | None = None,
    **session_arguments: Any,
) -> pd.DataFrame:
    """Run methods on a data set with several seeds, and return a row for each run.

    Records are stored, and a run with a record is not run again, so the same call continues after
    an interruption.

    `methods`: names; see `debiasbench list methods`.
    `model`: the network; by default the recommendation of the data set.
    `sparse`: a sparse training algorithm for all stages.
    `settings`: names as in `debiasbench run --set` -> a value, or a list of values to compare, such
    as `{"NAME.density": [0.01, 0.05], "train.epochs": 10}`.
    `select`: the selection rule whose outcome is returned; by default that of the data set.
    `session`: the session to use; by default a new one with `session_arguments`, the arguments of
    `debiasbench.Session`, such as `results="results"`, `data_root="data"`, `device="auto"`.

    The rows have the columns of `debiasbench.leaderboard.frame`: method, options, seed, accuracies
    in [0, 1] ("unbiased", "worst_group", ...) and cost. A run that failed has a row with
    `failure`. Raises `OptionError`, `UnknownNameError`, and all errors of `Session.run`.
    """
    names = [methods] if isinstance(methods, str) else list(methods)
    lists = {name: _values(value) for name, value in (settings or {}).items()}
    chosen = Comparison(names, list(seeds), dataset, model, sparse, lists)
    with _session(session, session_arguments) as open_session:
        precision = open_session.execution.numerics().precision
        specs = chosen.specs(open_session.plugins, open_session.data_root, precision)
        records = [open_session.run(spec).record for spec in specs.values()]
    return _selected(records, select)


def _values(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


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
