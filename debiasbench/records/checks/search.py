"""A search and its trials: the draws, the validation numbers, the winner and its seeds (E11)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import RecordError
from debiasbench.common.wording import shortened
from debiasbench.records import search as searches
from debiasbench.records import trial as trials_
from debiasbench.records.checks import epochs, numbers, statement
from debiasbench.records.checks.finding import Finding
from debiasbench.records.checks.labels import Labels, digests
from debiasbench.records.checks.predictions import predictions, stored_predictions
from debiasbench.records.selection import RULES
from debiasbench.specs.search import BLOCK, HYPERCUBE, SEED, drawn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from debiasbench.records.record import Record
    from debiasbench.records.search import Search
    from debiasbench.records.trial import Trial
    from debiasbench.specs.spec import Spec

CODE = "E11"


@dataclass(frozen=True, eq=False)
class ExaminedSearch:
    """A search, its trials as far as they can be read, and what is wrong with any of them."""

    path: Path
    search: Search
    trials: list[Trial]
    findings: list[Finding]

    @property
    def winner(self) -> Spec:
        """The spec of the winner; only if there are no findings."""
        return self.trials[self.search.won].spec


def examine(path: Path, labels: Labels | None = None) -> ExaminedSearch:
    """Read a search and its trials, and check that the winner follows from them.

    `labels`: compares the labels beside trials with those of other records on the same data. Raises
    `RecordError` for a file that is no search.
    """
    search = searches.read(path)
    try:
        trials, findings = _trials(path, search, labels)
        if not findings:
            findings = [Finding(CODE, text) for text in _contradictions(search, trials)]
    except Exception as error:  # a file that somebody made may hold anything
        trials, text = [], f"its content cannot be checked ({type(error).__name__}: {error})"
        findings = [Finding(CODE, shortened(text))]
    return ExaminedSearch(path, search, trials, findings)


def reported(examined: ExaminedSearch, records: Iterable[Record]) -> Iterator[Finding]:
    """Check that no record reports the winner with the seed of the trials."""
    if examined.findings:
        return
    winner, seed = examined.winner, examined.search.seed
    for record in records:
        if record.spec.seed == seed and like(record.spec, winner):
            yield Finding(
                CODE,
                f"the record {record.spec.stem} has seed {seed}, which chose the winner: a winner "
                "is reported on other seeds",
            )


def is_reported(examined: ExaminedSearch, records: Iterable[Record]) -> bool:
    """Say whether a record reports the winner of a search without findings."""
    return any(like(record.spec, examined.winner) for record in records)


def like(one: Spec, other: Spec) -> bool:
    """Say whether two specs differ in the seed at most, and in the revision of the rules."""
    return _setting(one) == _setting(other)


def _setting(spec: Spec) -> Spec:
    revisions = {k: v for k, v in (spec.revisions or {}).items() if k != "rules"}
    return replace(spec, seed=0, revisions=revisions or None)


def _trials(path: Path, search: Search, labels: Labels | None) -> tuple[list[Trial], list[Finding]]:
    found, findings = [], []
    for number, name in enumerate(search.trials):
        file = path.parent / search.trial_file(name)
        try:
            trial = trials_.read(file)
        except RecordError as error:
            missing = "" if file.exists() else " is missing"
            findings.append(Finding(CODE, f"trial {number}{missing}: {error}"))
            continue
        found.append(trial)
        if trial.id != name:
            findings.append(Finding(CODE, f"trial {number} is {trial.id} instead of {name}"))
        for finding in _of_trial(file, trial, labels):
            findings.append(Finding(finding.code, f"trial {number}: {finding.message}"))
    return found, findings


def _of_trial(path: Path, trial: Trial, labels: Labels | None) -> Iterator[Finding]:
    """Check a trial as a record is checked, on the validation split."""
    texts = [*statement.spec(trial), *statement.status(trial), *epochs.uneven(trial)]
    yield from (Finding("E01", text) for text in texts)
    stored, trouble = stored_predictions(path, trial)
    if trouble or (trial.outcomes and stored is None):
        yield Finding("E02", trouble or "it names no predictions")
    if stored is not None:
        if read := [key for key in stored if not key.startswith("val.")]:
            yield Finding(CODE, f"it has {read[0]}, although a trial reads validation alone")
        yield from predictions(trial, stored)
        if labels is not None:
            of = labels.differing_digests(path, trial.task.fingerprint, digests(stored))
            yield from [Finding("E03", of)] if of else []
    computed = numbers.computed_accuracies(trial)
    texts = [*numbers.metrics(trial, computed)]
    texts += [] if trial.cost is None else [*numbers.cost(trial.cost)]
    yield from (Finding("E04", text) for text in texts)
    texts = [*epochs.kept(trial, computed), *epochs.curves(trial, computed)]
    yield from (Finding("E05", text) for text in texts)


def _contradictions(search: Search, trials: list[Trial]) -> Iterator[str]:
    first = trials[0]
    yield from _statements(search, first)
    for number, trial in enumerate(trials):
        yield from (f"trial {number}: {text}" for text in _strays(search, first, trial))
        if search.sampler == HYPERCUBE:
            yield from _draws(search, first, trial, number)
    metric = searches.criterion(search.rule, first.supervision, first.task.metric)
    if metric != search.metric:
        yield f"trials are compared by {search.metric}, but under {search.rule} by {metric}"
    best = searches.winner(trials, search.rule, metric)
    if best != search.won:
        other = "no trial" if best is None else f"trial {best}"
        yield f"the winner is trial {search.won}, but the validation numbers say {other}"
    for name, stated, total in zip(
        ("seconds", "flops"), (search.seconds, search.flops), searches.cost(trials), strict=True
    ):
        if not math.isclose(stated, total):
            yield f"{name} is {stated}, but the trials add up to {total}"


def _statements(search: Search, first: Trial) -> Iterator[str]:
    if (search.seed, search.block) != (SEED, BLOCK):
        yield (
            f"seed {search.seed} and block {search.block} are not those of searches, {SEED} and "
            f"{BLOCK}"
        )
    if len(set(search.trials)) < len(search.trials) and not _few(search):
        yield "a trial occurs twice"
    spec = first.spec
    own = (search.dataset, search.model, search.method, search.sparse, search.fingerprint)
    if own != (spec.dataset, spec.model, spec.method.name, spec.sparse, first.task.fingerprint):
        yield "data set, model, method or sparsifier are not those of its trials"
    if search.rule not in RULES:
        yield f"the rule {search.rule} is unknown"
    if given := [name for name in first.provenance.chosen or () if name in search.space]:
        yield f"{given[0]} is searched, but trial 0 does not have its default"


def _few(search: Search) -> bool:
    """Say whether a space is so small that two trials may have drawn the same."""
    return all(one.kind == "choice" or one.whole for one in search.space.values())


def _strays(search: Search, first: Trial, trial: Trial) -> Iterator[str]:
    """Yield in what a trial differs from the first although that is not searched."""
    if trial.spec.seed != search.seed:
        yield f"its seed is {trial.spec.seed} instead of {search.seed}"
    if (trial.task.fingerprint, trial.supervision) != (first.task.fingerprint, first.supervision):
        yield "it has other data, or sees other labels, than the first"
    if _without(trial.spec, search) != _without(first.spec, search):
        yield "it differs from the first in something that is not searched"


def _without(spec: Spec, search: Search) -> Spec:
    """Return a spec without what a search varies."""
    training = {k: v for k, v in spec.training.items() if f"train.{k}" not in search.space}
    options = {k: v for k, v in spec.method.options.items() if f"method.{k}" not in search.space}
    method = replace(spec.method, options=options)
    return replace(_setting(spec), method=method, training=training)


def _draws(search: Search, first: Trial, trial: Trial, number: int) -> Iterator[str]:
    """Compare the values of a trial with those that the names of its options give."""
    for name, expected in drawn(search.method, search.space, number).items():
        scope, _, option = name.partition(".")
        of = trial.spec.method.options if scope == "method" else trial.spec.training
        stated = of.get(option)
        if option in of and not _equal(stated, expected):
            yield f"trial {number}: {name} is {stated}, but this trial draws {expected}"


def _equal(stated: object, expected: object) -> bool:
    if isinstance(stated, (int, float)) and isinstance(expected, (int, float)):
        return math.isclose(stated, expected, rel_tol=1e-9, abs_tol=1e-300)
    return canonical(stated) == canonical(expected)
