"""Suites for tests: files in the current folder, and what they come to."""

from __future__ import annotations

from pathlib import Path

from debiasbench.specs.plugins import Plugins
from debiasbench.specs.spec import Spec
from debiasbench.specs.suites import read

HEAD = 'name = "mine"\ndescription = "A test"\nsource = "here"\n'

BASE = '[base]\ndataset = "toy"\nmethod = "erm"\ntrain.epochs = 1\n'

SEEDS = "[grid]\nseed = [1, 2, 3]\n"


def write(text: str, path: str = "mine.toml", *, head: str = HEAD) -> str:
    Path(path).write_text(head + text)
    return path


def specs(text: str, plugins: Plugins) -> list[Spec]:
    return read(write(text)).specs(plugins)


def records() -> list[Path]:
    return sorted(Path("results").glob("*.json"))
