"""The trials of a search: which values each option has in each, and the specs; without torch.

Trial 0 has the defaults. The others are a Latin hypercube in blocks of 16: in a block, each option
has a value in each sixteenth of its space once (in the first block, trial 0 takes the place of
one). The order of the sixteenths and the places in them are derived from the names of method and
option alone, so that another option changes nothing for this one, and 16 trials are the first of
32. Options of the training are drawn alike for all methods.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError
from debiasbench.common.options import parse, spaces
from debiasbench.common.seeds import derive
from debiasbench.core.settings import Training, searched
from debiasbench.specs.grid import LIMIT
from debiasbench.specs.resolve import instance, make_spec
from debiasbench.specs.words import arguments, combined, label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from debiasbench.common.space import Space
    from debiasbench.core.settings import AnyPrecision
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec
    from debiasbench.specs.words import Find, Words

BLOCK = 16  # trials that stratify each option
SEED = 1000  # of all trials; reported runs have other seeds
TRIALS = 16
HYPERCUBE = "latin hypercube"  # the sampler of all searches that tables call tuned


def place(owner: str, option: str, trial: int) -> float:
    """Return where in its space an option has its value in a trial, in [0, 1).

    `owner`: the name of the method in specs, or "train".
    """
    seed = derive(0, "search", owner, option)
    block, number = divmod(trial, BLOCK)
    order = sorted(range(BLOCK), key=lambda k: derive(seed, "stratum", block, k))
    jitter = derive(seed, "jitter", trial) / 2**63
    return (order[number] + min(jitter, 1 - 2**-32)) / BLOCK


def drawn(method: str, space: Mapping[str, Space], trial: int) -> dict[str, object]:
    """Return the values of a trial by full name, such as "method.density"; none for trial 0.

    `method`: the name in specs. `space`: by full name.
    """
    if trial == 0:
        return {}
    # the name of a class of a file ends with a digest of the file
    owners = {"method": method.partition("@")[0], "train": "train"}
    values = {}
    for name, one in space.items():
        scope, _, option = name.partition(".")
        values[name] = one.at(place(owners[scope], option, trial))
    return values


def space_of(
    plugins: Plugins, method: str, dataset: str, fixed: Mapping[str, object]
) -> dict[str, Space]:
    """Return what a search tries, by full name: options of the method, then of the training.

    `fixed`: full names of what has a given value and is not searched. Raises `OptionError` and
    `PluginError`.
    """
    entry, of_name = plugins.methods.find(method)
    data = plugins.datasets.find(dataset)[0].load()
    recommended = parse(Training, dict(data.training), owner="training")
    found = {f"method.{o}": one for o, one in spaces(entry.load()).items() if o not in of_name}
    found |= {f"train.{o}": one for o, one in searched(recommended, data.search).items()}
    return {name: one for name, one in found.items() if name not in fixed}


@dataclass(frozen=True)
class Plan:
    """A search of one method: its trials, and what they differ in.

    `title`: tells it from other searches of a command. `space`: by full name. `fixed`: the options
    and settings that all trials share because they were given, by full name.
    """

    title: str
    space: Mapping[str, Space]
    fixed: Mapping[str, object]
    trials: tuple[Spec, ...]
    sampler: str = HYPERCUBE

    def titled(self) -> dict[str, Spec]:
        """Return the specs of the trials by title, such as "rest trial=3"."""
        return {f"{self.title} trial={k}": spec for k, spec in enumerate(self.trials)}

    def values(self, spec: Spec) -> dict[str, object]:
        """Return what a trial has for everything that is searched, by full name."""
        of = {"method": spec.method.options, "train": spec.training}
        names = {name: name.partition(".") for name in self.space}
        return {
            name: of[scope][option]
            for name, (scope, _, option) in names.items()
            if option in of[scope]  # a value that is left out of specs is no news
        }

    def reported(self, winner: Spec, seeds: Sequence[int]) -> dict[str, Spec]:
        """Return the specs that report a winner, by title; raises as `check_reported`."""
        check_reported(seeds)
        return {
            f"{self.title} tuned {label({'seed': seed})}": replace(winner, seed=seed)
            for seed in seeds
        }


def check_reported(seeds: Sequence[int]) -> None:
    """Raise `OptionError` if the seed of the trials is among the seeds to report."""
    if SEED in seeds:
        raise OptionError(
            f"Seed {SEED} is that of the trials, which chose the winner: report other seeds, such "
            "as 0-4"
        )


def check_trials(number: object) -> int:
    """Return a valid number of trials; raises `OptionError` for another."""
    if isinstance(number, bool) or not isinstance(number, int) or not 2 <= number <= LIMIT:
        raise OptionError(
            f"trials = {number!r}: must be a whole number from 2 to {LIMIT:,}, such as {TRIALS}. "
            "The first trial has the defaults"
        )
    return number


class Planner:
    """Makes the specs of the trials of one search.

    `words`: full names -> values, with "method"; options among them are fixed. `find`, `precision`:
    as of `Suite.named`. Raises `OptionError`, also for words that no search takes, and
    `UnknownNameError`.
    """

    def __init__(
        self,
        plugins: Plugins,
        words: Words,
        *,
        find: Find | None = None,
        precision: AnyPrecision = "fp32",
    ) -> None:
        if "seed" in words:
            raise OptionError(f"seed = {words['seed']}: the trials of a search have seed {SEED}")
        if "preset" in words:
            raise OptionError(
                f"preset = {words['preset']}: the first trial of a search has the defaults. Leave "
                "out the preset, or give its settings as options, which are then not searched"
            )
        self._plugins, self._find, self._precision = plugins, find, precision
        self._words = {"dataset": "digits", **words}
        self.method = str(words["method"])
        self.name = plugins.methods.name_in_spec(self.method)
        dataset = str(self._words["dataset"])
        self.fixed = {name: value for name, value in words.items() if "." in name}
        self.space = space_of(
            plugins, self.method, dataset if find is None else find(dataset)[0], self.fixed
        )

    def spec(self, trial: int, values: Mapping[str, object]) -> Spec:
        """Return the spec of a trial with these values of what is searched, by full name."""
        words = combined([self._words, {"seed": SEED}, values])
        keywords = arguments(words, self._plugins, self._find)
        try:
            spec = make_spec(self._plugins, **keywords, precision=self._precision)
        except OptionError as error:
            raise OptionError(f"Trial {trial} ({label(values)}): {error}") from error
        if names := spec.unresolved:
            raise OptionError(
                f"{' and '.join(names)} = auto depends on the machine, so trials would not be the "
                "same everywhere: give a value"
            )
        return spec

    def plan(
        self, specs: Sequence[Spec], title: str | None = None, sampler: str = HYPERCUBE
    ) -> Plan:
        """Return the search of these trials; raises `OptionError` if they see other labels."""
        seen = {instance(self._plugins.methods, spec.method).supervision for spec in specs}
        if len(seen) > 1:
            raise OptionError(
                f"method {self.method}: the options that are searched change which labels it sees "
                f"({' or '.join(sorted(map(str, seen)))}). Give a value for the option that "
                "decides it"
            )
        return Plan(title or self.method, self.space, self.fixed, tuple(specs), sampler)


def plan(
    plugins: Plugins,
    words: Words,
    trials: int = TRIALS,
    *,
    title: str | None = None,
    find: Find | None = None,
    precision: AnyPrecision = "fp32",
) -> Plan:
    """Return the search of a method whose trials are a Latin hypercube.

    `title`: by default the method. The other arguments are those of `Planner`. Raises as it does.
    """
    return hypercube(Planner(plugins, words, find=find, precision=precision), trials, title)


def hypercube(planner: Planner, trials: int, title: str | None = None) -> Plan:
    """Return the search whose trials are a Latin hypercube; raises `OptionError`."""
    numbers = range(check_trials(trials))
    specs = [planner.spec(k, drawn(planner.name, planner.space, k)) for k in numbers]
    return planner.plan(specs, title)
