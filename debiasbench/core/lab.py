"""`Lab`: lets a method make networks, train stages, predict, and read the labels it declares."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Protocol, get_args

import torch
from torch import Tensor, nn

from debiasbench.common.errors import (
    DebiasbenchError,
    OptionError,
    OutOfMemory,
    PluginError,
    SupervisionError,
)
from debiasbench.common.memory import is_out_of_memory
from debiasbench.common.options import parse
from debiasbench.common.randomness import generator, seeded
from debiasbench.common.seeds import derive
from debiasbench.core.coverage import check_reads_whole
from debiasbench.core.data import NEEDED, undeclared
from debiasbench.core.features import FeaturesOf, find_head
from debiasbench.core.head import NoHead, check_head, fresh, put
from debiasbench.core.inferred import checked as checked_inferences
from debiasbench.core.model import Model
from debiasbench.core.modes import evaluating
from debiasbench.core.objective import Objective, as_objective
from debiasbench.core.settings import STEP_ONLY, Training
from debiasbench.core.stage import Stage, Stream, Trained
from debiasbench.core.stage_checks import (
    checked_each_epoch,
    checked_extra,
    checked_visible,
    divided,
    drawn,
    optimizer_state_of,
)
from debiasbench.core.supervision import ValUse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from debiasbench.core.batches import BatchFunction
    from debiasbench.core.component import ComponentLike
    from debiasbench.core.head import Head
    from debiasbench.core.inferred import Inferred
    from debiasbench.core.inputs import Inputs
    from debiasbench.core.model import Shape
    from debiasbench.core.stage import Beside, EachEpoch
    from debiasbench.core.supervision import Supervision
    from debiasbench.core.view import View


class Backend(Protocol):
    """Trains and predicts for a lab."""

    @property
    def device(self) -> torch.device:
        """The device that networks are trained on."""

    def train(self, stage: Stage) -> Trained:
        """Train a stage, after adding the run's validation split to it."""

    def predict(self, objective: Objective, view: View) -> Tensor:
        """Return logits (N, C) for a view."""

    def features(self, objective: Objective, head: Head | NoHead, view: View) -> Tensor:
        """Return the head's inputs (N, D) for a view."""

    def map(
        self, objective: Objective, view: View, function: Callable[[nn.Module, Inputs], Tensor]
    ) -> Tensor:
        """Return (N, ...) values of a function of the network and of prepared inputs."""

    def keep(self, inferred: Inferred) -> None:
        """Keep what the method inferred of the training samples, beside the predictions."""


class Lab:
    """Networks, training, predictions and declared labels, for one method in one run.

    `shape`: the inputs and classes that networks must fit. `num_biases`, `num_groups`: the number
    of bias values and of groups, where group = y * num_biases + bias. `training`: the settings of
    the run, which a stage may change. `seed`: the seed of the run.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        model: Model,
        shape: Shape,
        num_biases: int,
        views: Mapping[str, View],
        supervision: Supervision,
        training: Training,
        seed: int,
        components: Callable[[], Sequence[ComponentLike]] = tuple,
    ) -> None:
        self.shape, self.num_biases, self.training, self.seed = shape, num_biases, training, seed
        self.num_groups = shape.classes * num_biases
        self._backend, self._model, self._views = backend, model, views
        self._supervision, self._components = supervision, components
        self._networks = self._heads = 0
        self._stages: list[str] = []
        self._busy = False  # whether a stage is being trained
        self._has_inferred = False

    def model(self, **options: object) -> nn.Module:
        """Return an initialised network.

        `options`: of the model, instead of those of the run, such as `hidden=(100, 100)`.

        The n-th network of a run has the same initial weights in every method that asks for it with
        the same options. Raises `OptionError` for an option that the model lacks, and if the
        network never reads more than a tenth of an image, `OutOfMemory` if it is too large, and
        `PluginError` if it does not fit the samples.
        """
        model = _with_options(self._model, options) if options else self._model
        with seeded(derive(self.seed, "init", self._networks)):
            try:
                network = model.build(self.shape).to(self._backend.device)
                if self._networks == 0 or options:
                    _check_fits(network, self.shape, self._views["train"])
                    if len(self.shape.input) == 3:
                        check_reads_whole(network, self.shape.input, str(model))
            except Exception as error:
                if _too_large(error):
                    raise OutOfMemory(
                        f"{model} for samples of shape {_described(self.shape)} needs more memory "
                        "than there is. Use a smaller network"
                    ) from error
                # many models do not accept named inputs; their shapes then explain the error
                expected = type(model).tokenizer is not Model.tokenizer or not self.shape.inputs
                if isinstance(error, DebiasbenchError) and expected:
                    raise
                raise PluginError(
                    f"{model} does not fit samples of shape {_described(self.shape)} and "
                    f"{self.shape.classes} classes: {type(error).__name__}: {error}"
                ) from error
        self._networks += 1
        return network

    def train(
        self,
        start: nn.Module | Trained,
        *,
        name: str,
        steps: int | None = None,
        weights: Tensor | None = None,
        subset: Tensor | None = None,
        batches: BatchFunction | None = None,
        beside: Beside | None = None,
        extra: Mapping[str, Tensor] | None = None,
        visible: Tensor | None = None,
        components: Sequence[ComponentLike] = (),
        data: str = "train",
        select: bool = True,
        each_epoch: EachEpoch | None = None,
        optimizer_of: Trained | None = None,
        keep_optimizer: bool = False,
        **settings: object,
    ) -> Trained:
        """Train a stage and return it; `start` is a network, an `Objective` or an earlier stage.

        A network is trained with mean cross-entropy. An earlier stage is copied, and training
        continues from its last weights and masks.

        `name`: unique name of the stage within the method.
        `steps`: number of optimizer steps, instead of the epochs in the settings.
        `weights`: (N,) sampling weights of the split; batches are drawn with replacement.
        `subset`: (M,) indices; only these samples are used.
        `batches`: instead of both, a function of the number of the epoch (from 0) and a generator,
        which returns the batches of this epoch, each (B,) int64 indices. It may depend on nothing
        else, because it is called again when a run is resumed.
        `beside`: a second stream of batches, which are `batch.beside`.
        `extra`: (N, ...) tensors of the split; batches have them as attributes by name.
        `visible`: (N, 1, H, W) bool; all other pixels of the images are black, that is 0 before
        augmentation and normalisation.
        `components`: constrain gradients and weights, in addition to `--sparse`.
        `data`: "train", or "val" with `Supervision(val="fit")`.
        `select`: whether selection rules are followed on the validation split after each epoch;
        pass False for a stage that cannot be the result.
        `each_epoch`: called after each epoch with the number of epochs so far and the objective. It
        may predict, change buffers of the objective, and return an `EpochChange`. Keep its state in
        these buffers, which checkpoints contain.
        `keep_optimizer`: whether the result has the optimizer's last state, for `optimizer_of`.
        `optimizer_of`: an earlier stage with `keep_optimizer=True`, whose optimizer state, such as
        momentum, is used further. Parameters are matched by name.
        `settings`: fields of `Training` to change for this stage, such as `epochs=1` or `lr=1e-4`.
        With another `schedule` than "step", milestones and decay of the run do not apply.

        Raises `TrainingFailed` if the loss becomes NaN or infinite, or if predictions become NaN.
        """
        if steps is not None and steps < 1:
            raise OptionError(f"steps={steps}: a stage needs at least one step")
        if name in self._stages:
            raise OptionError(f"Two stages are called {name!r}: give each stage its own name")
        if self._busy:
            raise OptionError("lab.train cannot be called in each_epoch, while a stage is trained")
        view = self._view(data, fit=True)
        of_run = dataclasses.asdict(self.training)
        if settings.get("schedule", "step") != "step":  # those of the run belong to its schedule
            of_run |= STEP_ONLY
        training = parse(Training, of_run | settings, owner="training")
        # the number, not the name, so that equal first stages of two methods are shared
        seed = derive(self.seed, "stage", len(self._stages))
        division = divided(view, training, seed, weights, subset, batches, steps)
        if each_epoch is not None:
            each_epoch = checked_each_epoch(each_epoch, view, division, extra or {})
        state = optimizer_state_of(optimizer_of, training)
        self._stages.append(name)
        if isinstance(start, Trained):
            objective, masks = copy.deepcopy(start.objective), start.masks
        else:
            objective, masks = as_objective(start), {}
        stage = Stage(
            name=name,
            objective=objective,
            view=view,
            batches=division,
            settings=training,
            steps=steps or division.steps(training.epochs),
            seed=seed,
            extra=checked_extra(extra, view) | checked_visible(visible, view),
            components=[*components, *self._components()],
            masks=masks,
            select=select,
            beside=None if beside is None else self._stream(beside, training),
            each_epoch=each_epoch,
            optimizer=state,
            keep_optimizer=keep_optimizer,
        )
        self._busy = True
        try:
            return self._backend.train(stage)
        finally:
            self._busy = False

    def _stream(self, beside: Beside, training: Training) -> Stream:
        """Return a second stream; of the validation split, without labels that are not declared."""
        labelled = beside.data != "val" or self._supervision.val == "fit"
        view = self._view(beside.data, fit=labelled)
        if not labelled:
            view = dataclasses.replace(view, labels={})
        size = training.batch_size if beside.batch_size is None else beside.batch_size
        if size < 1:
            raise OptionError(f"Beside(batch_size={size}): must be at least 1")
        return Stream(view, drawn(view, size, beside.weights, beside.subset))

    def predict(self, model: nn.Module | Trained, split: str) -> Tensor:
        """Return (N, C) logits for a split, on the CPU.

        `model`: a network, an `Objective`, or a stage, which predicts with its last weights. Raises
        `TrainingFailed` if a logit is NaN.
        """
        return self._backend.predict(_objective_of(model), self._view(split)).cpu()

    def features(self, model: nn.Module | Trained, split: str) -> Tensor:
        """Return (N, D) inputs of the network's last linear layer for a split, on the CPU.

        Of a network whose head was replaced by `nn.Identity()`, they are its outputs. Raises
        `OptionError` if this layer does not decide the logits alone. To find that out before
        training, call `head`.
        """
        objective = _objective_of(model)
        head = find_head(self._model, objective.network)
        if not isinstance(head, NoHead):
            head = self._head(objective.network, linear=False)
        return self._backend.features(objective, head, self._view(split)).cpu()

    def map(
        self,
        model: nn.Module | Trained,
        split: str,
        function: Callable[[nn.Module, Inputs], Tensor],
    ) -> Tensor:
        """Return what `function(network, x)` returns for a split, (N, ...), on the CPU.

        `function`: gets the network in evaluation mode and prepared inputs x (B, ...) without
        augmentation, and returns (B, ...). Gradients are enabled, so it may compute saliency.
        """
        return self._backend.map(_objective_of(model), self._view(split), function).cpu()

    def head(self, network: nn.Module) -> Head:
        """Return the network's last linear layer, whose input `features` returns.

        It is an `nn.Linear`, or an `nn.Conv2d` of kernel size 1. Raises `OptionError` unless the
        logits are the outputs of this layer, so that a method can replace its weights.
        """
        return self._head(network, linear=True)

    @property
    def features_of(self) -> FeaturesOf:
        """A function of a network and inputs that returns logits and features, with gradients.

        `logits, features = lab.features_of(network, x)`: (B, C), and the (B, D) inputs of the last
        linear layer, in one forward pass. A loss may keep it and call it in `forward`.
        """
        return FeaturesOf(self._model)

    def replace_head(self, network: nn.Module, layer: nn.Module | None = None) -> nn.Module:
        """Put another layer in the place of the network's head, and return this layer.

        `layer`: None is a new layer of the same type and shape with torch's default initialisation,
        which the run decides: the n-th replacement is the same in every method. `nn.Identity()`
        makes the network an encoder, which returns its features (B, D). Raises `OptionError` as
        `head` does.
        """
        head = find_head(self._model, network)
        seed = derive(self.seed, "head", self._heads)
        if not isinstance(head, NoHead):
            head = self._head(network, linear=True)
            new = fresh(head, seed) if layer is None else layer
            if type(new) is nn.Identity:
                new = NoHead(pooled=isinstance(head, nn.Conv2d))
        elif layer is None:
            raise OptionError(
                "This network has no head whose shape a new one could have: give the layer, such "
                "as lab.replace_head(network, nn.Linear(features, classes))"
            )
        else:
            new = layer
        self._heads += 1
        put(network, head, new.to(self._backend.device))
        return new

    def _head(self, network: nn.Module, *, linear: bool) -> Head:
        head = find_head(self._model, network)
        if isinstance(head, NoHead):
            raise OptionError(
                "This network has no head: lab.replace_head has replaced it by nn.Identity()"
            )
        samples = self._views["train"].inputs(slice(4))
        try:
            check_head(network, head, samples, linear=linear)
        except OptionError as error:
            raise OptionError(
                f"{self._model} has no last linear layer that a method can use: {error}. Use "
                "another --model"
            ) from error
        return head

    def labels(self, split: str = "train", label: str = "y") -> Tensor:
        """Return (N,) labels of a split on the CPU.

        `label`: "y", "group", "bias" (int64) or "conflict" (bool). Raises `SupervisionError` for
        labels that the method does not declare.
        """
        labels = self._view(split, labels=True).labels
        if label not in labels:
            if label in NEEDED:
                raise SupervisionError(undeclared(f"lab.labels({split!r}, {label!r})", label))
            raise OptionError(f"Unknown label {label!r}; labels are y, {', '.join(NEEDED)}")
        return labels[label].to("cpu", copy=True)  # a method may change the tensor it gets

    def inferred(
        self,
        groups: Tensor | None = None,
        conflict: Tensor | None = None,
        scores: Tensor | None = None,
    ) -> None:
        """Declare what the method inferred of the training samples, at most once in a run.

        It is stored beside the predictions, and `debiasbench leaderboard --panel groups` compares
        it with the true groups. No method sees this comparison, and nothing else depends on it.
        Give one of the three or several:

        `groups`: (N,) int64 pseudo-groups, from 0; they are judged within each class.
        `conflict`: (N,) bool, the samples that the method takes for bias-conflicting.
        `scores`: (N,) float, larger for samples that rather conflict, such as weights or losses;
        not NaN.
        """
        if self._has_inferred:
            raise OptionError(
                "lab.inferred was called twice: call it once, with everything that was inferred"
            )
        inferred = checked_inferences(
            len(self._views["train"]), groups=groups, conflict=conflict, scores=scores
        )
        self._has_inferred = True
        self._backend.keep(inferred)

    def generator(self, purpose: str) -> torch.Generator:
        """Return a CPU generator for the method, the same in every run of the same spec."""
        return generator(self.seed, "method", purpose)

    def _view(self, split: str, *, labels: bool = False, fit: bool = False) -> View:
        """Return a split, to read its inputs, also its labels, or to train on it."""
        if split == "test":
            raise SupervisionError(
                "A method cannot read the test split, which is only read after `fit`"
            )
        if split not in {"train", "val"}:
            raise OptionError(f"Unknown split {split!r}; a method may use train and val")
        uses = get_args(ValUse)  # each includes those before it
        need = "fit" if fit else "select" if labels else "inputs"
        if split == "val" and uses.index(self._supervision.val) < uses.index(need):
            raise SupervisionError(
                f"The method {_USES[need]} the validation split without declaring it. If it "
                f"should, add val={need!r} to its Supervision(...)"
            )
        return self._views[split]


_USES = {"inputs": "reads", "select": "reads labels of", "fit": "trains on"}


def _with_options(model: Model, options: Mapping[str, object]) -> Model:
    """Return a model with other values of some of its options; raises `OptionError`."""
    fields = [field.name for field in dataclasses.fields(model)]
    own = {name: getattr(model, name) for name in fields}
    owner = f"lab.model: model {type(model).__name__}"
    return parse(type(model), own | dict(options), owner=owner, show=False)


def _described(shape: Shape) -> str:
    return str(dict(shape.inputs) if shape.inputs else shape.input)


def _too_large(error: Exception) -> bool:
    # a number of units that is larger than 64 bits is a TypeError
    return is_out_of_memory(error) or "Overflow when unpacking long" in str(error)


@torch.no_grad()
def _check_fits(network: nn.Module, shape: Shape, view: View) -> None:
    """Predict two samples, so that a wrong shape is reported as an error of the model."""
    n = min(2, len(view))
    with evaluating(network):
        logits = network(view.inputs(slice(n)))
    if logits.shape != (n, shape.classes):
        raise ValueError(
            f"it returns {tuple(logits.shape)} for {n} samples, must be ({n}, {shape.classes})"
        )


def _objective_of(model: nn.Module | Trained) -> Objective:
    return model.objective if isinstance(model, Trained) else as_objective(model)
