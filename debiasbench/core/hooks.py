"""The whole extension surface: four hooks, by which builtins register too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pluggy

if TYPE_CHECKING:
    from debiasbench.core.data import Dataset
    from debiasbench.core.method import Method
    from debiasbench.core.model import Model
    from debiasbench.sparsity import Updater

PROJECT = "debiasbench"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """What a hook is handed: `register(name, target)`."""

    def __call__(self, name: str, target: type[Dataset | Model | Method | Updater] | str) -> None:
        """Offer a class under a name; "module:Class" is imported only when it is used."""


@hookspec
def debiasbench_register_datasets(register: Register) -> None:
    """Offer data sets: `register(name, DatasetClass)`."""


@hookspec
def debiasbench_register_models(register: Register) -> None:
    """Offer models: `register(name, ModelClass)`; a name ending in ":" is a family.

    `timm:` serves `timm:resnet18`; its class gets the rest as its option `name`.
    """


@hookspec
def debiasbench_register_methods(register: Register) -> None:
    """Offer methods: `register(name, MethodClass)`."""


@hookspec
def debiasbench_register_sparsifiers(register: Register) -> None:
    """Offer sparse training algorithms for `--sparse`: `register(name, UpdaterClass)`."""
