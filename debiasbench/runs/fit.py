"""Let a method train, with the labels that it declares and without the test split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from debiasbench.common.errors import (
    DebiasbenchError,
    OptionError,
    PluginError,
    SupervisionError,
)
from debiasbench.common.randomness import derive, seeded
from debiasbench.core.lab import Lab
from debiasbench.core.modes import is_finite
from debiasbench.core.objective import Objective, as_objective
from debiasbench.core.stage import StageCost, Trained
from debiasbench.core.supervision import Supervision
from debiasbench.sparsity import NotAttached, Sparsify, SparsityError
from debiasbench.sparsity.guards import check_reported
from debiasbench.sparsity.names import named_parameters
from debiasbench.specs.resolve import instance, training_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from debiasbench.core.component import Component
    from debiasbench.core.method import Method
    from debiasbench.core.model import Model
    from debiasbench.core.settings import Training
    from debiasbench.core.stage import Stage, Trainer
    from debiasbench.core.view import HeldOut, View
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec
    from debiasbench.training.placed import PlacedTask
    from debiasbench.training.predict import Predictor


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a method returned, and the costs of all its stages."""

    trained: Trained
    costs: tuple[StageCost, ...]


def fit(
    placed: PlacedTask,
    method: Method,
    *,
    model: Model,
    training: Training,
    seed: int,
    trainer: Trainer,
    predictor: Predictor,
    components: Callable[[], Sequence[Component]] = tuple,
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
        views["val"] = placed.view("val", "groups")
    backend = _Backend(trainer, predictor, placed.device, placed.held_out("val"))
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
    try:
        with seeded(derive(seed, "fit")):  # for methods that use torch's global generator
            result = method.fit(lab)
    except SupervisionError as error:
        raise SupervisionError(f"{owner}: {error}") from error
    except SparsityError as error:
        raise OptionError(f"{owner}: {error}") from error
    except DebiasbenchError:
        raise
    except Exception as error:
        raise PluginError(f"{owner} raised {first_line(error)}") from error
    costs = tuple(stage.cost for stage in backend.stages if stage.cost is not None)
    return Fitted(_as_trained(result, backend.stages, owner), costs)


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


def first_line(error: Exception) -> str:
    """Return the type and the first line of the message of an error."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


class _Backend:
    """Trains and predicts for a lab, and keeps the result of each stage."""

    def __init__(
        self, trainer: Trainer, predictor: Predictor, device: torch.device, validation: HeldOut
    ) -> None:
        self._trainer, self._predictor, self._validation = trainer, predictor, validation
        self.device = device
        self.stages: list[Trained] = []

    def train(self, stage: Stage) -> Trained:
        (trained,) = self._trainer.train([replace(stage, validation=self._validation)])
        self.stages.append(trained)
        return trained

    def predict(self, objective: Objective, view: View) -> Tensor:
        return self._predictor.predict(objective, view)

    def features(self, objective: Objective, head: nn.Linear, view: View) -> Tensor:
        return self._predictor.features(objective, head, view)


def _as_trained(result: object, stages: Sequence[Trained], owner: str) -> Trained:
    """Check what a method returned; make a network or objective a result without checkpoints."""
    if isinstance(result, Trained):
        last = result.checkpoints.get("last")
        state = result.objective.state_dict()
        if last and any(not torch.equal(state[name], value) for name, value in last.state.items()):
            raise PluginError(
                f"{owner} changed weights after lab.train and then returned the stage, whose "
                "checkpoints do not have this change: return the network instead, which is "
                "stage.objective.network"
            )
        try:
            check_reported(result.objective, result.masks, result.densities)
        except NotAttached as error:
            raise PluginError(
                f"{owner} changed weights after lab.train and then returned the stage, whose "
                f"density is another: {error}. Return the network instead, which is "
                "stage.objective.network"
            ) from error
        return result
    if not isinstance(result, nn.Module):
        raise PluginError(
            f"{owner} returned {type(result).__name__} from fit; return the result of lab.train, "
            "or a network"
        )
    objective = as_objective(result)
    if not is_finite(objective):
        raise PluginError(f"{owner} returned a network with a weight that is NaN or infinite")
    return Trained(objective, densities=_densities(objective, stages))


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
