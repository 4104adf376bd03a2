"""What a method may do: take networks, train stages, predict, and read the labels it declares."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from debiasbench.common.errors import DebiasbenchError, OptionError, PluginError, SupervisionError
from debiasbench.common.options import parse
from debiasbench.common.randomness import derive, generator, seeded
from debiasbench.core.data import NEEDED, undeclared
from debiasbench.core.modes import evaluating
from debiasbench.core.objective import CrossEntropy, Objective
from debiasbench.core.settings import Training
from debiasbench.core.stage import Trained

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from debiasbench.core.component import Component
    from debiasbench.core.data import Split, Task
    from debiasbench.core.method import Supervision
    from debiasbench.core.model import Model, Shape
    from debiasbench.training.engine import Engine
    from debiasbench.training.placed import View


class Lab:
    """A method's workplace: what it may do, and of the labels those that it declared.

    `shape`: what the networks fit; `num_biases`, `num_groups`: counts, group = y * num_biases +
    bias; `training`: the settings that stages start from; `seed`: the run's.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        train_stage: Callable[..., Trained],
        model: Model,
        shape: Shape,
        num_biases: int,
        views: Mapping[str, View],
        supervision: Supervision,
        training: Training,
        seed: int,
        components: Callable[[], Sequence[Component]] = tuple,
    ) -> None:
        self.shape, self.num_biases, self.training, self.seed = shape, num_biases, training, seed
        self.num_groups = shape.classes * num_biases
        self._engine, self._model, self._views = engine, model, views
        self._supervision, self._train_stage = supervision, train_stage
        self._components = components
        self._networks = 0
        self._stages: list[str] = []

    def model(self) -> nn.Module:
        """Return a freshly initialised network; the n-th of a run starts alike in every method."""
        with seeded(derive(self.seed, "init", self._networks)):
            try:
                network = self._model.build(self.shape).to(self._engine.device)
                if self._networks == 0:
                    _check_fits(network, self.shape, self._views["train"])
            except DebiasbenchError:
                raise
            except Exception as error:
                raise PluginError(
                    f"{self._model} does not fit samples of shape {self.shape.input} and "
                    f"{self.shape.classes} classes: {type(error).__name__}: {error}"
                ) from error
        self._networks += 1
        return network

    def train(
        self,
        what: nn.Module | Trained,
        *,
        name: str,
        steps: int | None = None,
        weights: Tensor | None = None,
        subset: Tensor | None = None,
        extra: Mapping[str, Tensor] | None = None,
        components: Sequence[Component] = (),
        data: str = "train",
        select: bool = True,
        **settings: object,
    ) -> Trained:
        """Train a stage and return it; `what` is a network, an `Objective` or an earlier stage.

        A network is trained with mean cross-entropy; an earlier stage is copied and trained on
        from its last weights and masks.

        `steps`: optimizer steps, instead of the settings' epochs.
        `weights`: (N,) sampling weights over the split; batches are drawn with replacement.
        `subset`: (M,) indices; only these samples are used.
        `extra`: (N, ...) tensors over the split that batches carry along by name.
        `components`: act around the optimizer step.
        `data`: "train", or "val" with `Supervision(val="fit")`.
        `select`: follow the selection rules on the validation split after each epoch; pass False
        where the stage cannot be the result.
        `settings`: fields of `Training` to change for this stage, such as `epochs=1` or `lr=1e-4`.

        Raises `TrainingFailed` if the loss becomes NaN or infinite.
        """
        if steps is not None and steps < 1:
            raise OptionError(f"steps={steps}: a stage takes at least one")
        if name in self._stages:
            raise OptionError(f"Two stages are called {name!r}; names must differ within a method")
        view = self._view(data, fit=True)
        self._stages.append(name)
        training = parse(Training, dataclasses.asdict(self.training) | settings, owner="training")
        return self._train_stage(
            copy.deepcopy(what.objective) if isinstance(what, Trained) else as_objective(what),
            view,
            training,
            # the ordinal, not the name: equal first stages of different methods are then equal
            seed=derive(self.seed, "stage", len(self._stages) - 1),
            name=name,
            steps=steps,
            weights=_checked_weights(weights, len(view)),
            subset=_checked_subset(subset, len(view)),
            extra=_checked_extra(extra, view),
            components=[*components, *self._components()],
            masks=what.masks if isinstance(what, Trained) else {},
            select=select,
        )

    def predict(self, what: nn.Module | Trained, split: str) -> Tensor:
        """(N, C) logits over a split, on the CPU; of a stage's last weights."""
        return self._engine.predict(_objective_of(what), self._view(split)).cpu()

    def features(self, what: nn.Module | Trained, split: str) -> Tensor:
        """(N, D) inputs of the network's last linear layer over a split, on the CPU."""
        objective = _objective_of(what)
        head = self._model.head(objective.network)
        return self._engine.features(objective, head, self._view(split)).cpu()

    def head(self, network: nn.Module) -> nn.Linear:
        """Return the network's last linear layer, the one that `features` feeds."""
        return self._model.head(network)

    def labels(self, split: str = "train", label: str = "y") -> Tensor:
        """(N,) labels of a split on the CPU: "y", "group", "bias" (int64) or "conflict" (bool).

        Raises `SupervisionError` for those the method does not declare.
        """
        labels = self._view(split).labels
        if label not in labels:
            if label in NEEDED:
                raise SupervisionError(undeclared(f"lab.labels({split!r}, {label!r})", label))
            raise OptionError(f"No label {label!r}; there are y, {', '.join(NEEDED)}")
        return labels[label].to("cpu", copy=True)  # a method may change what it was given

    def generator(self, purpose: str) -> torch.Generator:
        """Return a CPU generator of the method's own, equal in every run of the same spec."""
        return generator(self.seed, "method", purpose)

    def _view(self, split: str, *, fit: bool = False) -> View:
        if split == "test":
            raise SupervisionError(
                "The test split is out of a method's reach: it is read once, after `fit`"
            )
        if split not in {"train", "val"}:
            raise OptionError(f"No split {split!r}; a method may use train and val")
        need = "fit" if fit else "select"
        if split == "val" and self._supervision.val not in {need, "fit"}:
            raise SupervisionError(
                f"The method {'trains on' if fit else 'reads'} the validation split without "
                f"declaring it. If it is meant to, add val={need!r} to its Supervision(...)"
            )
        return self._views[split]


def visible_labels(task: Task, split: Split, level: str) -> dict[str, Tensor]:
    """Return the labels of a split that a declaration of `level` shows."""
    labels = {"y": split.y}
    if level in {"conflict", "groups"}:
        labels["conflict"] = task.conflict(split)
    if level == "groups":
        labels |= {"group": split.group, "bias": split.bias}
    return labels


def as_objective(module: nn.Module) -> Objective:
    """Return an objective as it is, a network under mean cross-entropy."""
    return module if isinstance(module, Objective) else CrossEntropy(module)


@torch.no_grad()
def _check_fits(network: nn.Module, shape: Shape, view: View) -> None:
    """Send two samples through, so that a misfit is the model's error and not the method's."""
    n = min(2, len(view))
    with evaluating(network):
        logits = network(view.inputs(slice(n)))
    if logits.shape != (n, shape.classes):
        raise ValueError(
            f"it returns {tuple(logits.shape)} for {n} samples, must be ({n}, {shape.classes})"
        )


def _objective_of(what: nn.Module | Trained) -> Objective:
    return what.objective if isinstance(what, Trained) else as_objective(what)


def _checked_weights(weights: Tensor | None, n: int) -> Tensor | None:
    if weights is None:
        return None
    values = torch.as_tensor(weights, dtype=torch.double).cpu()
    if values.shape != (n,):
        raise OptionError(f"weights must be ({n},), one a sample, not {tuple(values.shape)}")
    if not (values.isfinite().all() and (values >= 0).all() and values.sum() > 0):
        raise OptionError("weights must be finite, not negative, and not all 0")
    return values


def _checked_subset(subset: Tensor | None, n: int) -> Tensor | None:
    if subset is None:
        return None
    index = torch.as_tensor(subset).cpu()
    if index.dim() != 1 or index.dtype != torch.long or len(index) == 0:
        raise OptionError("subset must be a non-empty (M,) int64 tensor of sample indices")
    if int(index.min()) < 0 or int(index.max()) >= n:
        raise OptionError(f"subset indices must lie in 0 to {n - 1}")
    return index


def _checked_extra(extra: Mapping[str, Tensor] | None, view: View) -> dict[str, Tensor]:
    taken = {"x", "y", "index", *NEEDED}
    for name, values in (extra or {}).items():
        if name in taken:
            raise OptionError(f"extra {name!r} would hide what a batch has of its own")
        if len(values) != len(view):
            raise OptionError(f"extra {name!r} has {len(values)} rows for {len(view)} samples")
    return dict(extra or {})
