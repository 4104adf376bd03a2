"""Results as a data frame for Python: from records, runs, files or folders, with their options."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from debiasbench.common.errors import OptionError, RecordError
from debiasbench.leaderboard.frame import frame as all_rows
from debiasbench.leaderboard.gather import gather
from debiasbench.records.index import results as digest
from debiasbench.records.reading import read_all
from debiasbench.records.record import Record
from debiasbench.records.store import Run

if TYPE_CHECKING:
    from debiasbench.specs.spec import Spec

Results = Record | Run | Path | str

_JSON = ("options", "sparse_options", "training")  # columns that stand for several options


def frame(results: Results | Iterable[Results]) -> pd.DataFrame:
    """Return a row for each run and selection rule.

    `results`: records, runs, files of records, or folders that are searched for records; one or
    several of them.

    Accuracies are in [0, 1] and computed from the hits in each group; they are NaN where a run or
    a rule has no result. `failure` is the reason why a run has none, `missing` why a rule has none.
    `train`, `val`: the supervision of the row; `val` includes what the selection rule reads.
    Options have columns of their own, such as "method.density", "dataset.ratio", "model.width",
    "sparse.density" and "train.lr"; they are NaN where a row has no such option. Lists become
    tuples.

    A file that is not a valid record is left out, with a warning, and so is one that contradicts
    itself or its predictions; see `debiasbench verify`. Raises `RecordError` for a place that does
    not exist, and `OptionError` for anything else that is not a result.
    """
    records: dict[str, Record] = {}
    for record in _records(results):
        first = records.setdefault(record.id, record)
        if first is not record and digest(first) != digest(record):
            warnings.warn(
                f"There are two records of {record.spec.stem} with different results; the first "
                "is used",
                stacklevel=2,
            )
    table = all_rows(records.values()).drop(columns=list(_JSON), errors="ignore")
    options = pd.DataFrame([{"id": r.id, **_options(r.spec)} for r in records.values()])
    return table.merge(options.sort_index(axis=1), on="id") if records else table


def _records(results: Results | Iterable[Results]) -> Iterable[Record]:
    match results:
        case Record():
            yield results
        case Run():
            yield results.record
        case str() | Path():
            found, problems = _verified(Path(results))
            for problem in problems:
                warnings.warn(problem, stacklevel=4)
            yield from found
        case Iterable():
            for result in results:
                yield from _records(result)
        case _:
            raise OptionError(
                f"frame: {results!r} is not a result. Give a record, a run, a file or a folder"
            )


def _verified(place: Path) -> tuple[list[Record], list[str]]:
    """Return the records of a place that do not contradict themselves, and what is wrong."""
    try:
        gathered = gather([place], whole=True)
    except RecordError as error:
        found, problems = read_all([place])  # raises if there is no such place
        return [], [str(error)] if found else problems
    return gathered.records, gathered.problems


def _options(spec: Spec) -> dict[str, Any]:
    parts = {"method": spec.method, "sparse": spec.sparse}
    parts |= {"dataset": spec.dataset, "model": spec.model}
    options = {
        f"{part}.{name}": value
        for part, choice in parts.items()
        if choice is not None
        for name, value in choice.options.items()
    }
    options |= {f"train.{name}": value for name, value in spec.training.items()}
    options.setdefault("train.precision", "fp32")  # what a spec without it means
    return {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
