"""From names and options to a full spec, and from its choices to instances; without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from debiasbench.common.options import as_dict, parse
from debiasbench.core.settings import Training
from debiasbench.specs.spec import Choice, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.registry import Registry


def make_spec(
    plugins: Plugins,
    *,
    method: str,
    dataset: str = "digits",
    model: str | None = None,
    seed: int = 0,
    method_options: Mapping[str, object] | None = None,
    dataset_options: Mapping[str, object] | None = None,
    model_options: Mapping[str, object] | None = None,
    training: Mapping[str, object] | None = None,
    sparse: str | None = None,
    sparse_options: Mapping[str, object] | None = None,
    precision: str = "fp32",
) -> Spec:
    """Resolve names and options to a full spec, every default written out.

    `model` and `training` start from what the data set recommends; `sparse` names an algorithm
    that makes every stage sparse.
    Raises `UnknownNameError` and `OptionError`.
    """
    data = plugins.datasets[dataset].load()
    settings = parse(Training, {**data.training, **(training or {})}, owner="training")
    return Spec(
        dataset=_choice(plugins.datasets, dataset, dataset_options),
        model=_choice(plugins.models, model or data.model, model_options),
        method=_choice(plugins.methods, method, method_options),
        training=as_dict(settings),
        seed=seed,
        sparse=_choice(plugins.sparsifiers, sparse, sparse_options) if sparse else None,
    )


def _choice(registry: Registry[Any], name: str, options: Mapping[str, object] | None) -> Choice:
    entry, fixed = registry.find(name)
    owner = f"{registry.kind} {name}"
    resolved = as_dict(parse(entry.load(), {**(options or {}), **fixed}, owner=owner))
    return Choice(name, {k: v for k, v in resolved.items() if k not in fixed})


def instance(registry: Registry[Any], choice: Choice) -> Any:
    """Return the data set, model or method that a spec chose, with its options."""
    entry, fixed = registry.find(choice.name)
    owner = f"{registry.kind} {choice.name}"
    return parse(entry.load(), {**choice.options, **fixed}, owner=owner)


def training_of(spec: Spec) -> Training:
    """Return the training settings of a spec."""
    return parse(Training, {"precision": "fp32", **spec.training}, owner="training")


def find_dataset(plugins: Plugins, name: str, root: Path) -> tuple[str, dict[str, object]]:
    """Return the full name of a data set and the options that its name implies.

    Imported data are found by the name they were imported under, unless a plugin has that name;
    the checksum of the data is a part of the spec, so that other data under the same name are
    another spec.
    """
    from debiasbench.files.importing import find

    bare = name.removeprefix("imported:")
    if (bare != name or name not in plugins.datasets) and (digest := find(root, bare)) is not None:
        return f"imported:{bare}", {"digest": digest}
    return name, {}
