"""From names and options to a spec, and from a spec to instances; without torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import OptionError, UnknownNameError
from debiasbench.common.names import IMPORTED
from debiasbench.common.options import as_dict, from_dict, parse
from debiasbench.common.wording import shown
from debiasbench.core.settings import Training
from debiasbench.specs.revisions import renewed
from debiasbench.specs.spec import Choice, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from debiasbench.core.data import Dataset
    from debiasbench.core.method import Method
    from debiasbench.core.model import Model
    from debiasbench.core.settings import AnyPrecision
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.registry import Registry

SEEDS = range(2**63)
OF_THE_MACHINE = ("precision", "micro_batch", "threads")  # training settings


def make_spec(
    plugins: Plugins,
    *,
    method: str | type[Method],
    dataset: str | type[Dataset] = "digits",
    model: str | type[Model] | None = None,
    seed: int = 0,
    method_options: Mapping[str, object] | None = None,
    dataset_options: Mapping[str, object] | None = None,
    model_options: Mapping[str, object] | None = None,
    training: Mapping[str, object] | None = None,
    sparse: str | None = None,
    sparse_options: Mapping[str, object] | None = None,
    precision: AnyPrecision = "fp32",
) -> Spec:
    """Resolve names and options to a spec, with all defaults written out.

    `method`, `dataset`, `model`: names, or classes, which need not be registered. `model` and
    `training` default to what the data set recommends. `sparse` names a sparsifier, which makes
    every stage sparse. `precision` is what a precision of "auto" stands for on the machine that
    will run the spec, so that the spec does not hold "auto"; "auto" leaves that to the machine. A
    `micro_batch` of "auto" is kept: it is resolved by measuring. Until then the spec has no id.

    Raises `UnknownNameError` and `OptionError`.
    """
    check_seed(seed)
    method, dataset = plugins.methods.name_of(method), plugins.datasets.name_of(dataset)
    model = None if model is None else plugins.models.name_of(model)
    data = plugins.datasets.find(dataset)[0].load()
    settings = parse(Training, {**data.training, **(training or {})}, owner="training")
    if settings.precision == "auto":
        settings = replace(settings, precision=precision)
    spec = Spec(
        dataset=_choice(plugins.datasets, dataset, dataset_options),
        model=_choice(
            plugins.models,
            recommended_model(plugins, dataset) if model is None else model,
            model_options,
        ),
        method=_choice(plugins.methods, method, method_options),
        training=as_dict(settings),
        seed=seed,
        sparse=None if sparse is None else _choice(plugins.sparsifiers, sparse, sparse_options),
    )
    return renewed(plugins, spec)


def check_seed(seed: object) -> None:
    """Raise `OptionError` for a seed that is not a whole number in [0, 2**63)."""
    if not isinstance(seed, int) or isinstance(seed, bool) or seed not in SEEDS:
        raise OptionError(f"seed = {shown(seed)}: must be a whole number from 0 to {SEEDS[-1]}")


def recommended_model(plugins: Plugins, dataset: str) -> str:
    """Return the name of the model that a data set recommends.

    Among models of the same name, it is the one of the data set's own distribution.
    """
    entry, _ = plugins.datasets.find(dataset)
    name = entry.load().model
    own = f"{entry.origin.prefix}:{name}"
    return own if plugins.models.is_ambiguous(name) and own in plugins.models else name


def _choice(registry: Registry[Any], name: str, options: Mapping[str, object] | None) -> Choice:
    entry, fixed = registry.find(name)
    owner = f"{registry.kind} {name}"
    for option in fixed:
        if options and option in options:
            raise OptionError(
                f"{owner}: {option} is given twice: {shown(options[option])} as an option, and "
                f"{fixed[option]!r} in the name. Keep one of them"
            )
    resolved = as_dict(parse(entry.load(), {**(options or {}), **fixed}, owner=owner))
    options = {k: v for k, v in resolved.items() if k not in fixed}
    return Choice(registry.name_in_spec(name), options)


def instance(registry: Registry[Any], choice: Choice) -> Any:
    """Make the data set, model, method or sparsifier that a spec names, with its options."""
    entry, fixed = registry.find_in_spec(choice.name)
    owner = f"{registry.kind} {choice.name}"
    return from_dict(entry.load(), {**choice.options, **fixed}, owner=owner)


def chosen(plugins: Plugins, spec: Spec) -> list[str]:
    """Return what is not at its default in a spec: options of the method, and training settings.

    By full name, such as "method.density" and "train.lr". The default of a training setting is what
    the data set recommends. Settings that depend on the machine do not count.
    """
    entry, fixed = plugins.methods.find_in_spec(spec.method.name)
    data = plugins.datasets.find_in_spec(spec.dataset.name)[0].load()
    defaults = {
        f"method.{name}": value
        for name, value in as_dict(entry.load()()).items()
        if name not in fixed
    }
    given = {f"method.{name}": value for name, value in spec.method.options.items()}
    recommended = as_dict(parse(Training, dict(data.training), owner="training"))
    for values, settings in ((defaults, recommended), (given, spec.training)):
        values |= {f"train.{n}": v for n, v in settings.items() if n not in OF_THE_MACHINE}
    names = [*given, *(name for name in defaults if name not in given)]
    return [name for name in names if defaults.get(name, ...) != given.get(name, ...)]


def training_of(spec: Spec) -> Training:
    """Return the settings of a spec's training, including those that the spec leaves out."""
    return from_dict(Training, spec.training, owner="training")


def find_dataset(plugins: Plugins, name: str, root: Path) -> tuple[str, dict[str, object]]:
    """Return the full name of a data set and the options that its name and its files imply.

    The short name of an imported data set is enough unless a plugin registers the same name. The
    digest of the imported data becomes an option, so that other data under the same name is
    another spec; so do the options that `Dataset.implied` returns. Raises `UnknownNameError` with
    the registered and the imported names.
    """
    from debiasbench.files.importing import find, names

    short = name.removeprefix(IMPORTED)
    if (short != name or name not in plugins.datasets) and (
        digest := find(root, short)
    ) is not None:
        return f"{IMPORTED}{short}", {"digest": digest}
    try:
        entry, fixed = plugins.datasets.find(name)
    except UnknownNameError as error:
        registry = plugins.datasets
        known = [*registry.display_names(), *names(root)]
        raise UnknownNameError("dataset", name, known, hint=registry.unloaded) from error
    implied = entry.load().implied(root)
    return name, {option: value for option, value in implied.items() if option not in fixed}
