"""A suite: a named grid of runs, and the specs that it defines; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import OptionError, UnknownNameError, close_names
from debiasbench.common.wording import listed, shortened
from debiasbench.specs.grid import LIMIT
from debiasbench.specs.maker import Maker
from debiasbench.specs.search import TRIALS, Plan, check_reported, plan
from debiasbench.specs.words import BARE, as_text, label, option_names, short_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debiasbench.core.settings import AnyPrecision
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec
    from debiasbench.specs.words import Find, Words


@dataclass(frozen=True)
class StandIn:
    """The sizes of a data set: with them, runs are timed on made samples if its files are missing.

    Samples are random images of the shape `input`, (C, H, W), or `texts` texts of `words` words
    each. All other numbers are at least 1.
    """

    classes: int
    biases: int
    train: int  # samples
    val: int
    test: int
    input: tuple[int, ...] = ()
    texts: int = 0
    words: int = 0


@dataclass(frozen=True)
class Block:
    """Words that several runs share, and a grid of the words in which they differ.

    `grid`: a name, or several names that change together, joined by ", " -> the words of each
    alternative.
    """

    words: Words = field(default_factory=dict)
    grid: Mapping[str, tuple[Words, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchOf:
    """How a suite searches: `trials` of each search, and `select`, None for the data set's rule."""

    trials: int = TRIALS
    select: str | None = None


@dataclass(frozen=True)
class Suite:
    """A grid of runs: each block, for all combinations of the common grid and of its own grid.

    Words of a block replace those of `common`. `file` is named in error messages. `stand_ins`: name
    of a data set -> its sizes. `search`: if runs that differ in their seed only are one search,
    whose winner is reported with these seeds.
    """

    name: str
    description: str
    source: str
    file: str
    common: Block
    blocks: tuple[Block, ...]
    stand_ins: Mapping[str, StandIn]
    search: SearchOf | None = None

    def searches(
        self, plugins: Plugins, find: Find | None = None, precision: AnyPrecision = "fp32"
    ) -> list[tuple[Plan, list[int]]]:
        """Return the searches of a suite that searches, each with the seeds to report.

        Raises as `named` does.
        """
        assert self.search is not None
        seeds: dict[str, list[int]] = {}
        rows: dict[str, dict[str, object]] = {}
        for row in self.rows():
            words = {**self.common.words, **row}
            seed: Any = words.pop("seed", 0)
            key = canonical(words)
            title = label({name: value for name, value in row.items() if name != "seed"})
            rows.setdefault(key, {"words": words, "title": title or self.name})
            if seed not in seeds.setdefault(key, []):
                seeds[key].append(seed)
        try:
            for every in seeds.values():
                check_reported(every)
            return [
                (self._plan(row, plugins, find, precision), seeds[key]) for key, row in rows.items()
            ]
        except (OptionError, UnknownNameError) as error:
            raise OptionError(f"{self.file}: {error}") from error

    def _plan(
        self, row: Mapping[str, Any], plugins: Plugins, find: Find | None, precision: AnyPrecision
    ) -> Plan:
        assert self.search is not None
        words, trials = row["words"], self.search.trials
        if "method" not in words:
            raise OptionError(no_method(words))
        try:
            return plan(plugins, words, trials, title=row["title"], find=find, precision=precision)
        except OptionError as error:
            raise OptionError(self._misplaced(words, plugins) or str(error)) from error

    def specs(
        self, plugins: Plugins, find: Find | None = None, precision: AnyPrecision = "fp32"
    ) -> list[Spec]:
        """Return the specs in the order of the file, each once; see `named`."""
        return list(self.named(plugins, find, precision).values())

    def named(
        self, plugins: Plugins, find: Find | None = None, precision: AnyPrecision = "fp32"
    ) -> dict[str, Spec]:
        """Return the specs, each once, by the words that distinguish them: "density=0.05 seed=41".

        The last line of a grid changes fastest. `find` resolves the names of data sets; None takes
        them as they are. `precision`: see `make_spec`.

        Raises `OptionError` naming the file, also for more than `LIMIT` runs, and `PluginError` for
        a plugin that cannot be used.
        """
        if self.runs > LIMIT:
            raise OptionError(
                f"{self.file}: this grid has {self.runs:,} runs, more than {LIMIT:,}. Give fewer "
                "values"
            )
        maker = Maker(plugins, find, precision)
        specs: dict[str, Spec] = {}
        for row in self.rows():
            words = {**self.common.words, **row}
            try:
                spec = self._new(words, maker, plugins)
            except (OptionError, UnknownNameError) as error:
                raise OptionError(f"{self.file}: {error}") from error
            if spec is not None:
                specs[label(row) or self.name] = spec
        return specs

    @property
    def runs(self) -> int:
        """Number of runs, including those that occur several times."""
        common = prod(map(len, self.common.grid.values()))
        return common * sum(prod(map(len, block.grid.values())) for block in self.blocks)

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield the words of each run, except those that all runs share."""
        for block in self.blocks:
            for common in _combinations(self.common.grid):
                for own in _combinations(block.grid):
                    yield {**common, **block.words, **own}

    def _new(self, words: Words, maker: Maker, plugins: Plugins) -> Spec | None:
        """Return the spec of a run, None if it occurred before."""
        if "method" not in words:
            raise OptionError(no_method(words))
        try:
            return maker.new(words)
        except OptionError as error:
            raise OptionError(self._misplaced(words, plugins) or str(error)) from error

    def _misplaced(self, words: Words, plugins: Plugins) -> str:
        """Return how to write an option that only other methods of the suite have, or ""."""
        own = option_names(plugins.methods, str(words["method"]))
        for name, value in words.items():
            scope, _, option = name.partition(".")
            if scope != "method" or not option or option in own:
                continue
            owners = [m for m in self.methods() if option in option_names(plugins.methods, m)]
            if owners:
                return (
                    f"{option} is an option of {' and '.join(owners)}, but not of "
                    f"{words['method']}. Write a block for each method: [[runs]] with "
                    f'method = "{owners[0]}" and {option} = {shortened(as_text(value))}, or '
                    f"grid.{option} = [...] for several values, and [[runs]] with "
                    f'method = "{words["method"]}"'
                )
        return ""

    def methods(self) -> list[str]:
        """Return the names of all methods of the suite."""
        blocks = (self.common, *self.blocks)
        words = [block.words for block in blocks]
        words += [row for block in blocks for rows in block.grid.values() for row in rows]
        return list(dict.fromkeys(str(row["method"]) for row in words if "method" in row))


def no_method(words: Words) -> str:
    """Return the message for a run without a method, with what to write."""
    given = [short_name(name) for name in words]
    meant = dict.fromkeys(close_names("method", given), "method")
    if meant:
        meant |= {f"{bare}s": bare for bare in BARE if f"{bare}s" in given}
        instead = " and ".join(f"{bare!r} instead of {name!r}" for name, bare in meant.items())
        return f"a run has no method. Did you mean {instead}?"
    return f'a run has no method, only {listed(given)}: add method = "NAME" to [base]'


def _combinations(grid: Mapping[str, tuple[Words, ...]]) -> Iterator[dict[str, object]]:
    for alternatives in product(*grid.values()):
        yield {name: value for words in alternatives for name, value in words.items()}
