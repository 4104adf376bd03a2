"""Checks of a submission against suites, methods and maintainers' lists (E06, E08, E09, E10)."""

from __future__ import annotations

import json
import math
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import (
    DebiasbenchError,
    OptionError,
    RecordError,
    UnknownNameError,
)
from debiasbench.common.regular import read_regular
from debiasbench.common.wording import shown
from debiasbench.records.checks.finding import Finding
from debiasbench.records.checks.search import like
from debiasbench.records.selection import RULES
from debiasbench.specs.parts import parts
from debiasbench.specs.resolve import instance, training_of
from debiasbench.specs.search import HYPERCUBE
from debiasbench.specs.suites import read as read_suite

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from debiasbench.records.checks.search import ExaminedSearch
    from debiasbench.records.record import Record, Result
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Choice, Spec
    from debiasbench.submissions.about import About

SEEDS = frozenset(range(5))  # of rows whose settings are those of no suite
TUNED = ("lr", "weight_decay")  # a stranger who could search the epochs would train longer
BY_MACHINE = ("precision", "micro_batch")  # settings that the machine resolves
CLOCKS = timedelta(hours=1)  # the clocks of two machines may differ by this
CHANGES = "+changes"  # ends the commit of a checkout with changes


@dataclass(frozen=True)
class Expected:
    """What a suite requires of the records of a submission.

    `seeds`: those of each data set. `settings`: the settings of training that are allowed, by data
    set, network and method; the method "" stands for methods that the suite does not have.
    """

    seeds: dict[str, set[int]] = field(default_factory=dict)
    settings: dict[tuple[str, str, str], set[str]] = field(default_factory=dict)


def expected(name: str, plugins: Plugins) -> Expected:
    """Read what a suite of debiasbench itself requires; raises `UnknownNameError`."""
    if name.endswith(".toml"):
        raise UnknownNameError("suite", name, [], "Give the name of a suite, not a file")
    found = Expected()
    common: dict[tuple[str, str], Counter[str]] = {}
    methods: set[tuple[str, str, str]] = set()
    for spec in read_suite(name).specs(plugins):
        data, model, training = canonical_of(spec.dataset), canonical_of(spec.model), settings(spec)
        found.seeds.setdefault(data, set()).add(spec.seed)
        found.settings.setdefault((data, model, spec.method.name), set()).add(training)
        key = data, model, spec.method.name
        if key not in methods:
            methods.add(key)
            common.setdefault((data, model), Counter())[training] += 1
    for (data, model), counter in common.items():
        # a new method has the settings that most methods of the suite have
        found.settings[data, model, ""] = {counter.most_common(1)[0][0]}
    return found


def canonical_of(choice: Choice) -> str:
    """Return a choice as text that is equal for equal choices."""
    return canonical([choice.name, choice.options])


def settings(spec: Spec, but: Collection[str] = ()) -> str:
    """Return the training of a spec and its sparsifier as text, without what machines decide.

    `but`: settings that are left out, too.
    """
    training = {k: v for k, v in spec.training.items() if k not in {*BY_MACHINE, *but}}
    return canonical([training, None if spec.sparse is None else canonical_of(spec.sparse)])


def _without(text: str, names: Collection[str]) -> str:
    """Return what `settings` returned, without some settings."""
    training, sparse = json.loads(text)
    return canonical([{k: v for k, v in training.items() if k not in names}, sparse])


def row_of(spec: Spec) -> str:
    """Return what the records of one row share: everything but the seed and the micro-batch.

    Machines of different memory need different micro-batches.
    """
    decides = [canonical_of(c) for c in (spec.dataset, spec.model, spec.method)]
    sparse = None if spec.sparse is None else canonical_of(spec.sparse)
    training = {k: v for k, v in spec.training.items() if k != "micro_batch"}
    return canonical([*decides, sparse, training, spec.revisions])


def rows(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Group records by `row_of`, in order of rows and seeds."""
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.spec.seed):
        found.setdefault(row_of(record.spec), []).append(record)
    return dict(sorted(found.items()))


def seeds(row: Sequence[Record], suite: Expected | None) -> Iterator[Finding]:
    """Check that a row has the required seeds, and no others (E06)."""
    data = canonical_of(row[0].spec.dataset)
    required = SEEDS if suite is None else suite.seeds.get(data)
    if required is None:
        return  # E08 says that the suite has no such data set
    there = {record.spec.seed for record in row}
    if missing := sorted(required - there):
        yield Finding("E06", f"there is no record of seed {_listed(missing)} of this row")
    if extra := sorted(there - required):
        yield Finding("E06", f"seed {_listed(extra)} must not be in this row")


def suite_settings(
    record: Record, suite: Expected, name: str, chosen: Collection[str] = ()
) -> Iterator[Finding]:
    """Check that a spec is that of the suite, except for the method (E08).

    `chosen`: settings of training that a search chose, which may have other values.
    """
    spec = record.spec
    data, model = canonical_of(spec.dataset), canonical_of(spec.model)
    if data not in suite.seeds:
        yield Finding(
            "E08", f"the suite {name} has no data set {spec.dataset.name} with these options"
        )
        return
    own = suite.settings.get((data, model, spec.method.name))
    allowed = own or suite.settings.get((data, model, ""))
    if allowed is None:
        yield Finding(
            "E08", f"the suite {name} has another network than {spec.model.name} with these options"
        )
    elif settings(spec, but=chosen) not in {_without(text, chosen) for text in allowed}:
        yield Finding(
            "E08", f"the training is not that of the suite {name}: {_difference(spec, allowed)}"
        )


def tuned(record: Record, found: Sequence[ExaminedSearch]) -> set[str]:
    """Return the settings of training that searches chose for a record, of `TUNED`."""
    return {
        name
        for one in found
        if one.search.sampler == HYPERCUBE and like(record.spec, one.winner)
        for name in TUNED
        if f"train.{name}" in one.search.space
    }


def _difference(spec: Spec, allowed: Iterable[str]) -> str:
    training, sparse = json.loads(settings(spec))
    theirs, other = json.loads(sorted(allowed)[0])
    texts = [
        f"{k} is {shown(training.get(k))} instead of {shown(theirs.get(k))}"
        for k in differing(training, theirs)
    ]
    if sparse != other:
        texts.append(f"sparse is {shown(sparse)} instead of {shown(other)}")
    return ", ".join(texts)


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """Return the names whose values are not the same in two mappings, sorted."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def declared(record: Record, plugins: Plugins) -> Iterator[Finding]:
    """Check options and supervision against the classes in `plugins` (E09).

    Names that are not in `plugins` are left out.
    """
    for kind, (registry, choice) in parts(plugins, record.spec).items():
        try:
            made = instance(registry, choice)
        except UnknownNameError:
            continue
        except DebiasbenchError as error:
            yield Finding("E09", str(error))
            continue
        if kind == "method" and made.supervision != record.supervision:
            yield Finding(
                "E09",
                f"the record says {record.supervision}, but {choice.name} declares "
                f"{made.supervision}",
            )
    try:
        training_of(record.spec)
    except OptionError as error:
        yield Finding("E09", str(error))


def supervision(record: Record, others: Iterable[Record]) -> Iterator[Finding]:
    """Check that a method of one distribution declares the same in all records (E09)."""
    origin = record.provenance.plugins.get("method")
    for other in others:
        same = other.spec.method == record.spec.method
        if (
            same
            and other.provenance.plugins.get("method") == origin
            and (other.supervision != record.supervision)
        ):
            yield Finding(
                "E09",
                f"the record says {record.supervision}, but {other.spec.stem} of the same method "
                f"says {other.supervision}",
            )
            return


def epochs(record: Record) -> Iterator[Finding]:
    """Check that a record has what shows which epochs were best (E05), and if it failed (W05).

    Only older records may lack it, and no older record is submitted.
    """
    if record.status == "failed":
        yield Finding("W05", "the training failed, so that this seed has no result")
        return
    stages = [] if record.cost is None else record.cost.stages
    if not record.curves and any("epochs" in stage for stage in stages):
        yield Finding("E05", "it has no curves, although its stages have epochs")
    followed = [c.stage for c in record.curves if any(n.startswith("val_") for n in c.values)]
    for rule, metric in RULES.items():
        outcome = record.outcomes.get(rule)
        if outcome is not None:
            if outcome.epoch is None and followed:
                yield Finding(
                    "E05",
                    f"{rule} keeps no epoch, although {shown(followed[0])} has validation curves",
                )
        elif metric is None or not all(
            math.isnan(other.val.metrics.get(metric, math.nan))
            for other in record.outcomes.values()
        ):
            yield Finding("E05", f"there is no result of {rule}")


def provenance(
    record: Result, about: About | None, blocked: Sequence[Blocked]
) -> Iterator[Finding]:
    """Check versions and commits (E10)."""
    made = record.provenance
    if made.git is not None and made.git.endswith(CHANGES) and not (about and about.changes):
        yield Finding(
            "E10",
            f"debiasbench had changes that were not committed ({made.git[:12]}{CHANGES}). Run it "
            'again without them, or describe them in submission.toml: changes = "..."',
        )
    if wrong := _impossible_date(made.started):
        yield Finding("E10", f"it says that it was started at {shown(made.started)}, which {wrong}")
    origin = made.plugins.get("method", "")
    if about is not None and origin != about.origin:
        yield Finding(
            "E10",
            f"the method is of {shown(origin)}, but submission.toml says {shown(about.origin)}",
        )
    used = {*made.plugins.values(), *(f"{name} {number}" for name, number in made.versions.items())}
    for one in blocked:
        if (name := f"{one.distribution} {one.version}") in used:
            yield Finding("E10", f"{name} must not be used: {one.reason}")


def _impossible_date(text: str) -> str:
    """Return what is wrong with the date of a record, "" if nothing is."""
    try:
        date = datetime.fromisoformat(text)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return "is in the future" if date > datetime.now(UTC) + CLOCKS else ""
    except (ValueError, OverflowError):
        return "is not a date of ISO 8601"


@dataclass(frozen=True)
class Blocked:
    """A version of a distribution whose results are wrong."""

    distribution: str
    version: str
    reason: str


def read_blocked(file: Path) -> list[Blocked]:
    """Read a list of blocked versions: TOML tables `[[blocked]]`; raises `RecordError`."""
    try:
        data = tomllib.loads(read_regular(file, 1 << 20).decode())
        return [Blocked(**one) for one in data.get("blocked", [])]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise RecordError(f"{file} is not a list of blocked versions ({error})") from error


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds[:20])) + (
        f" and {len(seeds) - 20} more" if len(seeds) > 20 else ""
    )
