"""Let a method train, with the labels that it declares and without the test split."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from debiasbench.common.errors import (
    DebiasbenchError,
    OptionError,
    OutOfMemory,
    PluginError,
    PredictionFailed,
    SupervisionError,
)
from debiasbench.common.foreign import contained, explained, is_interrupt
from debiasbench.common.memory import is_out_of_memory
from debiasbench.common.randomness import seeded
from debiasbench.common.seeds import derive
from debiasbench.core.lab import Lab
from debiasbench.core.modes import is_finite
from debiasbench.core.objective import Objective, as_objective
from debiasbench.core.stage import StageCost, Trained
from debiasbench.core.supervision import Supervision
from debiasbench.runs.ledger import Ledger, last_step
from debiasbench.sparsity import NotAttached, Sparsify, SparsityError
from debiasbench.sparsity.guards import check_reported
from debiasbench.sparsity.names import named_parameters
from debiasbench.specs.resolve import instance, training_of
from debiasbench.training.predict import check_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from debiasbench.core.component import ComponentLike
    from debiasbench.core.head import Head, NoHead
    from debiasbench.core.inferred import Inferred
    from debiasbench.core.inputs import Inputs
    from debiasbench.core.method import Method
    from debiasbench.core.model import Model
    from debiasbench.core.settings import Training
    from debiasbench.core.stage import Stage, Trainer
    from debiasbench.core.view import View
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec
    from debiasbench.training.placed import PlacedTask
    from debiasbench.training.predict import Predictor


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a method returned, all its stages in order, and its name for errors.

    `inferred`: what the method inferred of the training samples, if it declared anything.
    `inferred_after`: number of stages that had ended then.
    """

    trained: Trained
    stages: tuple[Trained, ...]
    owner: str = "the method"
    module: str = ""  # of the method's class
    inferred: Inferred | None = None
    inferred_after: int = 0

    @property
    def costs(self) -> list[StageCost]:
        """The costs of all stages."""
        return [stage.cost for stage in self.stages if stage.cost is not None]


def fit(
    placed: PlacedTask,
    method: Method,
    *,
    model: Model,
    training: Training,
    seed: int,
    trainer: Trainer,
    predictor: Predictor,
    components: Callable[[], Sequence[ComponentLike]] = tuple,
    owner: str = "the method",
) -> Fitted:
    """Let a method train on a task.

    `components`: makes the components that are added to each stage. `owner`: the name of the
    method in errors. Raises `SupervisionError`, `OptionError`, and `PluginError` for any other
    error that the method raises.
    """
    supervision = method.supervision
    if not isinstance(supervision, Supervision):
        raise PluginError(f"{owner}: supervision is {supervision!r}, must be a Supervision(...)")
    views = {"train": placed.view("train", supervision.train)}
    if supervision.val != "none":
        views["val"] = placed.view("val", "groups" if supervision.sees_val_labels else None)
    ledger = Ledger(with_checkpoints=supervision.sees_val_labels)
    backend = _backend(trainer, predictor, placed, ledger)
    lab = Lab(
        backend=backend,
        model=model,
        shape=placed.task.shape,
        num_biases=len(placed.task.biases),
        views=views,
        supervision=supervision,
        training=training,
        seed=seed,
        components=components,
    )
    # seeded for methods that use global generators
    module = type(method).__module__
    with blamed(owner, module), seeded(derive(seed, "fit")), contained(owner, signals=False):
        trained = _as_trained(method.fit(lab), ledger, owner)
    return Fitted(
        trained, tuple(ledger.stages), owner, module, ledger.inferred, ledger.inferred_after
    )


@contextmanager
def blamed(owner: str, module: str = "") -> Iterator[None]:
    """Name the method in errors that its code, in `module`, raises inside the context.

    `SupervisionError`, `OptionError` and other errors of the package stay what they are; any other
    error becomes a `PluginError`.
    """
    try:
        yield
    except SupervisionError as error:
        raise SupervisionError(f"{owner}: {error}") from error
    except SparsityError as error:
        raise OptionError(f"{owner}: {error}") from error
    except DebiasbenchError:
        raise
    except BaseException as error:  # a plugin may raise anything, also SystemExit
        if is_interrupt(error):
            raise
        if is_out_of_memory(error):
            raise OutOfMemory(
                f"{owner} needs more memory than there is. Use a smaller network or less data"
            ) from error
        raised = explained(error, module)
        raise PluginError(f"{owner} raised {raised}. --debug shows the traceback") from error


def fit_spec(
    spec: Spec, plugins: Plugins, placed: PlacedTask, trainer: Trainer, predictor: Predictor
) -> Fitted:
    """Let the method of a spec train on a task."""
    updater: Any = None if spec.sparse is None else instance(plugins.sparsifiers, spec.sparse)
    return fit(
        placed,
        instance(plugins.methods, spec.method),
        model=instance(plugins.models, spec.model),
        training=training_of(spec),
        seed=spec.seed,
        trainer=trainer,
        predictor=predictor,
        components=lambda: [] if updater is None else [Sparsify(updater)],
        owner=str(plugins.methods[spec.method.name]),
    )


@dataclass(frozen=True, eq=False)
class _Backend:
    """What a lab calls.

    The functions are closures, so that a method that looks into its lab finds neither the
    validation split nor the trainer.
    """

    device: torch.device
    train: Callable[[Stage], Trained]
    predict: Callable[[Objective, View], Tensor]
    features: Callable[[Objective, Head | NoHead, View], Tensor]
    map: Callable[[Objective, View, Callable[[nn.Module, Inputs], Tensor]], Tensor]
    keep: Callable[[Inferred], None]


def _backend(
    trainer: Trainer, predictor: Predictor, placed: PlacedTask, ledger: Ledger
) -> _Backend:
    validation, classes = placed.held_out("val"), placed.task.shape.classes

    def train(stage: Stage) -> Trained:
        (trained,) = trainer.train([replace(stage, validation=validation)])
        return ledger.given(trained)

    def predict(objective: Objective, view: View) -> Tensor:
        logits = predictor.predict(objective, view)
        with located(*last_step(ledger.costs)):
            check_logits(logits, len(view), classes)
        return logits

    def features(objective: Objective, head: Head | NoHead, view: View) -> Tensor:
        return predictor.features(objective, head, view)

    def mapped(
        objective: Objective, view: View, function: Callable[[nn.Module, Inputs], Tensor]
    ) -> Tensor:
        return predictor.map(objective, view, function)

    def keep(inferred: Inferred) -> None:
        ledger.inferred, ledger.inferred_after = inferred, len(ledger.costs)

    return _Backend(placed.device, train, predict, features, mapped, keep)


@contextmanager
def located(stage: str, step: int) -> Iterator[None]:
    """Name the stage and step after which predictions inside the context fail."""
    try:
        yield
    except PredictionFailed as error:
        raise PredictionFailed(stage, step) from error


def _as_trained(result: object, ledger: Ledger, owner: str) -> Trained:
    """Check what a method returned; make a network or objective a result without checkpoints."""
    if isinstance(result, Trained):
        kept = ledger.kept(result, owner)
        try:
            check_reported(kept.objective, kept.masks, kept.densities)
        except NotAttached as error:
            raise PluginError(
                f"{owner} changed weights after lab.train and then returned the stage, whose "
                f"density is another: {error}. Return the network instead, which is "
                "stage.objective.network"
            ) from error
        return kept
    if not isinstance(result, nn.Module):
        raise PluginError(
            f"{owner} returned {type(result).__name__} from fit; return the result of lab.train, "
            "or a network"
        )
    objective = as_objective(result)
    if not is_finite(objective):
        raise PluginError(f"{owner} returned a network with a weight that is NaN or infinite")
    return Trained(objective, densities=_densities(objective, ledger.stages))


def _densities(objective: Objective, stages: Sequence[Trained]) -> dict[str, float]:
    """Return the densities of a network that was returned without its stage.

    The density of a weight is that of the last stage whose mask the weight still satisfies.
    Weights that the method replaced later, such as those of a refitted head, are dense.
    """
    densities: dict[str, float] = {}
    for name, weight in named_parameters(objective):
        for stage in reversed(stages):
            if (density := _density(name, weight, stage)) is not None:
                densities[name] = density
                break
    return densities


def _density(name: str, weight: Tensor, stage: Trained) -> float | None:
    """Return the density of a weight after a stage, or None if the weight has changed since."""
    density, mask = stage.densities.get(name), stage.masks.get(name)
    if density is None:
        return None
    if mask is None:  # a component that reports densities without masks
        return density if weight.count_nonzero() <= round(density * weight.numel()) else None
    if mask.shape != weight.shape or bool((weight.detach() * ~mask.to(weight.device)).any()):
        return None
    return density
