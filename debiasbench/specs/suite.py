"""A suite: a named grid of runs, and the specs that it defines; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import OptionError, UnknownNameError
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.words import arguments, label, short_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debiasbench.core.settings import Precision
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec
    from debiasbench.specs.words import Find, Words


@dataclass(frozen=True)
class StandIn:
    """The sizes of a data set: with them, runs are timed on random images if its files are missing.

    All numbers are at least 1.
    """

    input: tuple[int, ...]  # (C, H, W)
    classes: int
    biases: int
    train: int  # samples
    val: int
    test: int


@dataclass(frozen=True)
class Block:
    """Words that several runs share, and a grid of the words in which they differ.

    `grid`: a name, or several names that change together, joined by ", " -> the words of each
    alternative.
    """

    words: Words = field(default_factory=dict)
    grid: Mapping[str, tuple[Words, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """A grid of runs: each block, for all combinations of the common grid and of its own grid.

    Words of a block replace those of `common`. `file` is named in error messages. `stand_ins`: name
    of a data set -> its sizes.
    """

    name: str
    description: str
    source: str
    file: str
    common: Block
    blocks: tuple[Block, ...]
    stand_ins: Mapping[str, StandIn]

    def specs(
        self, plugins: Plugins, find: Find | None = None, precision: Precision = "fp32"
    ) -> list[Spec]:
        """Return the specs in the order of the file, each once; see `named`."""
        return list(self.named(plugins, find, precision).values())

    def named(
        self, plugins: Plugins, find: Find | None = None, precision: Precision = "fp32"
    ) -> dict[str, Spec]:
        """Return the specs, each once, by the words that distinguish them: "density=0.05 seed=41".

        The last line of a grid changes fastest. `find` resolves the names of data sets; None takes
        them as they are. `precision`: see `make_spec`.

        Raises `OptionError` naming the file, and `PluginError` for a plugin that cannot be used.
        """
        specs: dict[str, Spec] = {}
        taken: set[str] = set()
        for row in self._rows():
            words = {**self.common.words, **row}
            spec = self._spec(words, plugins, find, precision)
            text = canonical(asdict(spec))  # not the id: a spec that is not resolved has none
            if text not in taken:
                taken.add(text)
                specs[label(row) or self.name] = spec
        return specs

    def _rows(self) -> Iterator[dict[str, object]]:
        for block in self.blocks:
            for common in _combinations(self.common.grid):
                for own in _combinations(block.grid):
                    yield {**common, **block.words, **own}

    def _spec(
        self, words: Words, plugins: Plugins, find: Find | None, precision: Precision
    ) -> Spec:
        try:
            if "method" not in words:
                given = ", ".join(map(short_name, words)) or "nothing"
                raise OptionError(
                    f'a run has no method, only {given}: add method = "NAME" to [base]'
                )
            return make_spec(plugins, **arguments(words, plugins, find), precision=precision)
        except (OptionError, UnknownNameError) as error:
            raise OptionError(f"{self.file}: {error}") from error


def _combinations(grid: Mapping[str, tuple[Words, ...]]) -> Iterator[dict[str, object]]:
    for alternatives in product(*grid.values()):
        yield {name: value for words in alternatives for name, value in words.items()}
