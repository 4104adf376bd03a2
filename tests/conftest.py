"""What tests share: the command line as a function, and no plugin that happens to be installed."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from debiasbench import Dataset, Method, Supervision, Task, hookimpl, option
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.registry import Origin
from tests import warm

if TYPE_CHECKING:
    from click.testing import Result

# a worker of pytest-xdist has a core, not all of them; threads that wait leave it to others
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"

# before collection: parametrised tests list what is registered
os.environ["DEBIASBENCH_PLUGINS"] = "0"

ACME = Origin("acme", "1.0")


def pytest_configure(config: pytest.Config) -> None:
    """Leave slow tests out if no test was named, and make the folder of the server of `tests.warm`.

    The workers of pytest-xdist share the folder and take over the choice.
    """
    if config.args_source is config.ArgsSource.TESTPATHS and not config.option.markexpr:
        config.option.markexpr = "not slow"
    if warm.FOLDER not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="debiasbench-warm-")
        Path(folder.name, "tester").write_text(str(os.getpid()))
        os.environ[warm.FOLDER] = folder.name
        config.add_cleanup(folder.cleanup)
        config.add_cleanup(warm.end)  # the last one is called first


@cache
def prepare() -> None:
    """Import and set what the tests need; not in a process that only hands tests to workers."""
    import torch
    from hypothesis import settings

    torch.set_num_threads(1)
    os.fsync = lambda file: None  # no file of a test must outlive a power failure
    # equal examples in every run, however slow the machine
    settings.register_profile("debiasbench", derandomize=True, deadline=None, database=None)
    settings.load_profile("debiasbench")


def pytest_collectstart() -> None:
    prepare()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let files with slow tests begin first, so that all workers end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Let the garbage collector ignore what was imported: tests out of memory call it often."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Toy(Dataset):
    """Two classes, two biases, a second of training."""

    training = {"epochs": 2, "batch_size": 16, "lr": 0.05}  # noqa: RUF012 - as plugins write it
    model = "mlp"

    ratio: float = option(0.15, "fraction of conflicting samples", ge=0, le=1)

    def load(self, root: Path) -> Task:
        return _toy_task(self.ratio)


@cache
def _toy_task(ratio: float) -> Task:
    from debiasbench.testing import toy_task

    return toy_task(ratio=ratio)


class ToyPlugin:
    """Offers the toy data set, as an installed plugin would."""

    @hookimpl
    def debiasbench_register_datasets(self, register: Callable[..., None]) -> None:
        register("toy", Toy)


def offering(**methods: type) -> object:
    """Make a plugin that registers methods by name."""

    class Plugin:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            for name, method in methods.items():
                register(name, method)

    return Plugin()


@pytest.fixture(scope="session")
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder that tests use instead of the user's cache."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def builtins_only(monkeypatch: pytest.MonkeyPatch, user_cache: Path) -> None:
    """Tests see builtin plugins and those they bring, and run on the CPU, whatever is there."""
    monkeypatch.setenv("DEBIASBENCH_PLUGINS", "0")
    monkeypatch.setenv("DEBIASBENCH_DEVICE", "cpu")
    monkeypatch.setenv("DEBIASBENCH_CACHE", str(user_cache))
    monkeypatch.delenv("DEBIASBENCH_DATA", raising=False)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):  # they make a pipe pass for a terminal
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def plugins() -> Plugins:
    """Builtin plugins and the toy data set."""
    return Plugins([(ToyPlugin(), ACME)])


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an empty folder the current one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the benchmark multiply small matrices."""
    monkeypatch.setattr("debiasbench.measure.bench.PRODUCTS", (16, 32))


@pytest.fixture
def debiasbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call the command line in an empty folder: `debiasbench("list", "methods")`."""
    from click.testing import CliRunner

    from debiasbench.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*words: object, extra: tuple[object, ...] = ()) -> Result:
        loaded = Plugins([(ToyPlugin(), ACME), *((plugin, ACME) for plugin in extra)])
        return CliRunner().invoke(main, [str(w) for w in words], obj=loaded)

    return call


@dataclass(frozen=True)
class Peek(Method):
    """Reads a label in its loss, with whatever declaration a subclass makes."""

    label = "group"

    def fit(self, lab: Any) -> Any:
        from torch import Tensor

        from debiasbench import Batch
        from debiasbench.core.objective import CrossEntropy

        label = self.label

        class Reading(CrossEntropy):
            def forward(self, batch: Batch) -> Tensor:
                return super().forward(batch) + 0 * getattr(batch, label).sum()

        return lab.train(Reading(lab.model()), name="train")


@dataclass(frozen=True)
class PeekDeclared(Peek):
    """The same, declared."""

    supervision = Supervision(train="groups")
