"""The plugin hooks; builtin classes are registered through them too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pluggy

if TYPE_CHECKING:
    from debiasbench.core.data import Dataset
    from debiasbench.core.method import Method
    from debiasbench.core.model import Model
    from debiasbench.core.tracker import Tracker
    from debiasbench.sparsity import Updater

PROJECT = "debiasbench"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """The callback that each hook receives: `register(name, target)`."""

    def __call__(
        self, name: str, target: type[Dataset | Model | Method | Updater | Tracker] | str
    ) -> None:
        """Register a class, or a string "module:Class" that is imported when it is first used."""


@hookspec
def debiasbench_register_datasets(register: Register) -> None:
    """Register data sets: `register(name, DatasetClass)`."""


@hookspec
def debiasbench_register_models(register: Register) -> None:
    """Register models: `register(name, ModelClass)`.

    A name that ends in ":" registers a family of models. For example, a class that is registered
    as `timm:` provides `timm:resnet18`, and gets "resnet18" as its option `name`.
    """


@hookspec
def debiasbench_register_methods(register: Register) -> None:
    """Register methods: `register(name, MethodClass)`."""


@hookspec
def debiasbench_register_sparsifiers(register: Register) -> None:
    """Register sparse training algorithms for `--sparse`: `register(name, UpdaterClass)`."""


@hookspec
def debiasbench_register_trackers(register: Register) -> None:
    """Register trackers, which listen to runs: `register(name, TrackerClass)`."""
