"""`Search`: the trials of one method, which of them won by which rule, and what they cost."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.atomic import write_whole
from debiasbench.common.canonical import Strict, digest
from debiasbench.common.errors import RecordError, StoreError
from debiasbench.common.regular import read_regular
from debiasbench.common.space import Space
from debiasbench.common.wording import shortened
from debiasbench.records.plain import fault, refused
from debiasbench.records.reading import SEARCH, TRIAL
from debiasbench.records.selection import RULES
from debiasbench.records.trial import FOLDER
from debiasbench.specs.search import BLOCK, HYPERCUBE, SEED
from debiasbench.specs.spec import Choice, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import TypeAdapter

    from debiasbench.core.supervision import Supervision
    from debiasbench.records.trial import Trial

SCHEMA = 1
MOST_BYTES = 16 << 20
LAST_METRIC = "average"  # by which rule `last` compares trials, if no bias labels may be read


@dataclass(frozen=True)
class Search(Strict):
    """A search: what was asked, the ids of its trials in order, and the winner.

    `method`: the name in specs. `fixed`: words that all trials share, as text by full name.
    `space`: by full name. `block`, `seed`: see `debiasbench.specs.search`. `rule`: the selection
    rule; `metric`: the validation accuracy by which trials were compared under it. `fingerprint`:
    of the data. `seconds`, `flops`: of training, over all trials that did not fail.
    """

    id: str
    dataset: Choice
    model: Choice
    method: str
    fixed: dict[str, str]
    space: dict[str, Space]
    rule: str
    metric: str
    trials: list[str]
    winner: str
    fingerprint: str
    seconds: float
    flops: float
    sparse: Choice | None = None
    sampler: str = HYPERCUBE
    block: int = BLOCK
    seed: int = SEED
    schema: int = field(default=SCHEMA)

    @property
    def asked(self) -> str:
        """The id that follows from what was asked and which trials that were."""
        data = asdict(self)
        for name in ("id", "winner", "seconds", "flops", "schema"):
            del data[name]
        return digest(json.loads(json.dumps(data)))[:16]

    @property
    def won(self) -> int:
        """The number of the winner."""
        return self.trials.index(self.winner)

    @property
    def name(self) -> str:
        """The name of its file."""
        parts = (self.dataset.name, self.method, *([self.sparse.name] if self.sparse else ()))
        stem = re.sub("[^A-Za-z0-9_.-]", "_", "-".join((*parts, self.rule)))
        return f"{stem}-{self.id}{SEARCH}"

    def trial_file(self, name: str) -> str:
        """Return the name of the file of the trial with an id."""
        like = Spec(
            self.dataset, self.model, Choice(self.method), {}, seed=self.seed, sparse=self.sparse
        )
        return f"{like.group}-{name}{TRIAL}"


def criterion(rule: str, supervision: Supervision, metric: str) -> str:
    """Return the validation accuracy by which a rule compares trials.

    It is that of the rule. Rule `last` has none: it compares by the metric of the data set where
    the method itself reads labels of the validation split, and otherwise by the average accuracy,
    which reads no bias labels.
    """
    own = RULES[rule]
    if own is not None:
        return own
    return metric if supervision.sees_val_labels else LAST_METRIC


def score(trial: Trial, rule: str, metric: str) -> float:
    """Return the accuracy of a trial by which it is compared; NaN if it failed or has none."""
    outcome = trial.outcomes.get(rule)
    return math.nan if outcome is None else outcome.val.metrics.get(metric, math.nan)


def winner(trials: Sequence[Trial], rule: str, metric: str) -> int | None:
    """Return the number of the best trial, of equal ones the first; None if all have failed."""
    best: int | None = None
    for number, trial in enumerate(trials):
        value = score(trial, rule, metric)
        if not math.isnan(value) and (best is None or value > score(trials[best], rule, metric)):
            best = number
    return best


def cost(trials: Sequence[Trial]) -> tuple[float, float]:
    """Return the seconds and the FLOPs of training of all trials together."""
    known = [trial.cost for trial in trials if trial.cost is not None]
    return (
        math.fsum(one.training_seconds for one in known),
        math.fsum(one.training_flops for one in known),
    )


def make(
    trials: Sequence[Trial],
    space: Mapping[str, Space],
    fixed: Mapping[str, str],
    rule: str,
    sampler: str = HYPERCUBE,
) -> Search | None:
    """Return the search that trials make, in order; None if all of them have failed."""
    first = trials[0]
    metric = criterion(rule, first.supervision, first.task.metric)
    best = winner(trials, rule, metric)
    if best is None:
        return None
    seconds, flops = cost(trials)
    search = Search(
        id="",
        dataset=first.spec.dataset,
        model=first.spec.model,
        method=first.spec.method.name,
        fixed=dict(fixed),
        space=dict(space),
        rule=rule,
        metric=metric,
        trials=[trial.id for trial in trials],
        winner=trials[best].id,
        fingerprint=first.task.fingerprint,
        seconds=seconds,
        flops=flops,
        sparse=first.spec.sparse,
        sampler=sampler,
    )
    return replace(search, id=search.asked)


def write(results: Path, search: Search) -> Path:
    """Write a search into a folder of records, replacing an earlier one; raises `StoreError`."""
    path = results / FOLDER / search.name
    text = json.dumps(asdict(search), indent=1, sort_keys=True, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != text:
            write_whole(path, text.encode())
    except OSError as error:
        raise StoreError(f"Cannot write {path}: {error.strerror or error}") from error
    return path


def read(path: Path) -> Search:
    """Read the file of a search; raises `RecordError` with its name."""
    try:
        return _read(read_regular(path, MOST_BYTES).decode())
    except RecordError as error:
        raise RecordError(f"{path} {shortened(str(error), 600)}") from error
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} cannot be read: {shortened(str(error))}") from error


def _read(text: str) -> Search:
    from pydantic import ValidationError

    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"is not valid JSON ({shortened(str(error))})") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise RecordError(f"is not a search of schema {SCHEMA}")
    if wrong := fault(data, finite=True):
        raise RecordError(f"is damaged: {wrong}")
    try:
        search = _reader().validate_python(data)
    except ValidationError as error:
        raise RecordError(f"is damaged at {refused(error)}") from error
    if search.winner not in search.trials or search.rule not in RULES:
        raise RecordError("contradicts itself: the winner is no trial, or the rule is unknown")
    if search.asked != search.id:
        raise RecordError(f"was changed by hand: its content hashes to {search.asked}")
    return search


@cache
def _reader() -> TypeAdapter[Search]:
    from pydantic import TypeAdapter

    return TypeAdapter(Search)
