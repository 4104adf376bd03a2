"""The checks for plugin authors fail where they should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from debiasbench import Dataset, Method, Model, Shape, Supervision, Task, hookimpl
from debiasbench.common.errors import DebiasbenchError
from debiasbench.core.objective import CrossEntropy
from debiasbench.core.settings import Training
from debiasbench.core.view import HeldOut
from debiasbench.methods.erm import ERM
from debiasbench.sparsity import GMP, RigL, Updater
from debiasbench.sparsity.distributions import DISTRIBUTIONS, Shares
from debiasbench.sparsity.topology import drop_and_grow
from debiasbench.testing import (
    check_dataset,
    check_distribution,
    check_method,
    check_model,
    check_plugin,
    check_updater,
    toy_task,
)


@dataclass(frozen=True)
class Untrained(Method):
    """Learns nothing."""

    def fit(self, lab: Any) -> Any:
        return lab.model()


@dataclass(frozen=True)
class Unseeded(Method):
    """Takes its weights from a generator of its own, without a seed."""

    def fit(self, lab: Any) -> Any:
        noise = torch.from_numpy(np.random.default_rng().random(len(lab.labels())))
        return lab.train(lab.model(), weights=1 + noise, name="train")


@dataclass(frozen=True)
class OwnLoop(Method):
    """Trains past the engine, so that components do not reach its network."""

    def fit(self, lab: Any) -> Any:
        lab.train(lab.model(), name="train")
        network = lab.model()
        view = lab._views["train"]
        optimizer = torch.optim.SGD(network.parameters(), 0.05)
        for _ in range(60):
            optimizer.zero_grad()
            logits = network(view.inputs(slice(None)))
            nn.functional.cross_entropy(logits, view.labels["y"]).backward()
            optimizer.step()
        return network


class Unbiased(CrossEntropy):
    """Divides by one sample less than there are."""

    def forward(self, batch: Any) -> torch.Tensor:
        losses = nn.functional.cross_entropy(self.network(batch.x), batch.y, reduction="none")
        return losses.sum() / losses.new_tensor(len(losses) - 1)


@dataclass(frozen=True)
class NeedsTwo(Method):
    """Fails on batches of one."""

    def fit(self, lab: Any) -> Any:
        return lab.train(Unbiased(lab.model()), name="train")


@dataclass(frozen=True)
class EveryGroup(Method):
    """Divides by the size of every group, there or not."""

    supervision = Supervision(train="groups")

    def fit(self, lab: Any) -> Any:
        group = lab.labels(label="group")
        sizes = group.bincount(minlength=lab.num_groups)
        assert sizes.min() > 0
        return lab.train(lab.model(), weights=1 / sizes[group], name="train")


@dataclass(frozen=True)
class Peeks(Method):
    """Finds labels that it did not declare, past the lab."""

    def fit(self, lab: Any) -> Any:
        cells = [cell.cell_contents for cell in lab._backend.train.__closure__]
        (validation,) = (value for value in cells if isinstance(value, HeldOut))
        group = validation.view.labels["group"]
        share = (group == 0).float().mean().item()
        return lab.train(lab.model(), name="train", lr=0.01 + share)


@dataclass(frozen=True)
class InfersNoise(Method):
    """Infers something else each time."""

    def fit(self, lab: Any) -> Any:
        lab.inferred(scores=torch.from_numpy(np.random.default_rng().random(len(lab.labels()))))
        return lab.train(lab.model(), name="train")


@dataclass(frozen=True)
class PeeksAtClasses(Peeks):
    """Finds classes of the validation split, of which it declares to see the inputs."""

    supervision = Supervision(val="inputs")

    def fit(self, lab: Any) -> Any:
        cells = [cell.cell_contents for cell in lab._backend.train.__closure__]
        (validation,) = (value for value in cells if isinstance(value, HeldOut))
        first = validation.view.labels["y"][:5].float().mean().item()
        return lab.train(lab.model(), name="train", lr=0.01 + first)


@dataclass(frozen=True)
class Adapts(Method):
    """Weights training samples by how much their logits are like those of validation samples."""

    supervision = Supervision(val="inputs")

    def fit(self, lab: Any) -> Any:
        first = lab.train(lab.model(), name="first", epochs=1)
        target = lab.predict(first, "val").mean(0)
        distance = (lab.predict(first, "train") - target).norm(dim=1)
        return lab.train(lab.model(), weights=1 / (1 + distance), name="train")


@dataclass(frozen=True)
class Plateaus(Method):
    """Has a schedule that reads the validation loss."""

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), schedule="plateau", epochs=12, name="train")


@dataclass(frozen=True)
class Slow(Method):
    """Learns too slowly for the usual settings."""

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), lr=lab.training.lr / 1000, name="train")


@pytest.mark.parametrize("method", [Adapts(), Plateaus()], ids=lambda m: type(m).__name__)
def test_check_method_passes_a_method_that_sees_no_more_than_it_declares(method: Method) -> None:
    check_method(method)


def test_check_method_takes_other_settings_and_another_model() -> None:
    with pytest.raises(AssertionError, match="accuracy on aligned toy samples"):
        check_method(Slow())
    check_method(Slow(), training=Training(epochs=6, batch_size=16, lr=50.0))
    check_method(ERM(), training=Training(epochs=8, batch_size=16), model=Normalising())


@dataclass(frozen=True)
class Normalising(Model):
    """A network that cannot train on a single sample."""

    def build(self, shape: Shape) -> nn.Module:
        layers = [nn.Flatten(), nn.Linear(shape.features, 8), nn.BatchNorm1d(8), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(8, shape.classes))


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        (InfersNoise(), r"lab\.generator.*first difference: scores of lab\.inferred"),
        (Untrained(), "accuracy on aligned toy samples"),
        (Unseeded(), r"draw random numbers from lab\.generator"),
        (OwnLoop(), "was trained without the sparse component"),
        (NeedsTwo(), "NaN or infinite"),
        (EveryGroup(), "AssertionError"),
        (Peeks(), "Labels that the method does not declare changed the result"),
        (PeeksAtClasses(), "Labels that the method does not declare changed the result"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_check_method_refuses_a_method_that_breaks_a_promise(
    method: Method, complaint: str
) -> None:
    with pytest.raises((AssertionError, DebiasbenchError), match=complaint):
        check_method(method)


@dataclass(frozen=True)
class Bad(Model):
    """A network with one of several flaws."""

    flaw: str = ""

    def build(self, shape: Shape) -> nn.Module:
        wide = shape.classes + (self.flaw == "wide")
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(shape.features, wide)]
        if self.flaw == "random":
            with torch.no_grad():
                noise = np.random.default_rng().random()
                layers[1].weight.add_(noise)  # type: ignore[operator,union-attr]
        if self.flaw == "unused":
            layers[1].register_parameter("spare", nn.Parameter(torch.zeros(3)))
        if self.flaw == "head":
            layers += [nn.Linear(shape.classes, 7), nn.Identity()]
            return Skipping(*layers)
        return nn.Sequential(*layers)


class Skipping(nn.Sequential):
    """Leaves its third layer out."""

    def forward(self, x: torch.Tensor) -> Any:
        return self[1](self[0](x)) + 0 * sum(p.sum() for p in self[2].parameters())


@pytest.mark.parametrize(
    ("flaw", "complaint"),
    [
        ("wide", r"returned shape \(4, 6\) for 4 samples, must be \(4, 5\)"),
        ("random", "different initial values"),
        ("unused", "Parameters without gradient: 1.spare"),
        ("head", "a layer with 7 outputs, must be 5"),
    ],
)
def test_check_model_refuses_a_model_with_a_flaw(flaw: str, complaint: str) -> None:
    check_model(Bad())
    with pytest.raises(AssertionError, match=complaint):
        check_model(Bad(flaw))


@dataclass(frozen=True)
class Flawed(Dataset):
    """A data set with one of several flaws."""

    flaw: str = ""

    def load(self, root: Path) -> Task:
        task = toy_task()
        if self.flaw == "unseeded":
            x = task.train.x + np.random.randint(0, 50)
            return replace(task, train=replace(task.train, x=x))
        if self.flaw == "conflict":
            return replace(task, aligned=torch.zeros(2, 2, dtype=torch.bool))
        return task


@pytest.mark.parametrize(
    ("flaw", "complaint"),
    [
        ("unseeded", "Two calls of load returned different data"),
        ("conflict", "No .* pair is aligned"),
    ],
)
def test_check_dataset_refuses_a_data_set_with_a_flaw(flaw: str, complaint: str) -> None:
    check_dataset(Flawed())
    with pytest.raises(AssertionError, match=complaint):
        check_dataset(Flawed(flaw))


@dataclass(frozen=True)
class Shrinking(RigL):
    """Loses a weight of each layer at every update."""

    def exchange(self, layer: Any, k: int) -> Any:
        return drop_and_grow(layer.mask, layer.weight.abs(), layer.weight, k + 1, k)


@dataclass(frozen=True)
class GloballyRandom(RigL):
    """Grows by torch's global generator."""

    def grow_scores(self, layer: Any) -> Any:
        return torch.rand(layer.weight.shape)


HISTORY: list[int] = []


@dataclass(frozen=True)
class Remembering(RigL):
    """Decides by how often it was asked."""

    def grow_scores(self, layer: Any) -> Any:
        HISTORY.append(0)
        return layer.weight.abs() + torch.arange(layer.weight.numel()).view(
            layer.weight.shape
        ).roll(len(HISTORY))


@pytest.mark.parametrize(
    ("updater", "says"),
    [
        (Shrinking(every="4"), "weights are active at the end"),
        (GloballyRandom(every="4"), "global generators"),
        (Remembering(every="4"), "global generators|saved state"),
    ],
)
def test_check_updater_finds_what_is_wrong(updater: Updater, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_updater(updater)


@pytest.mark.parametrize("updater", [RigL(every="4"), GMP(every="4"), RigL(0.3, init="snip")])
def test_check_updater_passes_what_is_sound(updater: Updater) -> None:
    check_updater(updater)


def test_check_distribution_passes_the_builtin_ones_and_finds_what_is_wrong() -> None:
    for distribution in DISTRIBUTIONS.values():
        check_distribution(distribution)
    with pytest.raises(AssertionError, match="has values for the layers a, must have them for"):
        check_distribution(lambda shapes, density: Shares({"a": 1.0}))
    with pytest.raises(AssertionError, match="positive and finite"):
        check_distribution(lambda shapes, density: Shares(dict.fromkeys(shapes, 0.0)))


def test_a_data_set_that_names_a_missing_source_is_found_out(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Missing(Dataset):
        def load(self, root: Path) -> Task:
            return toy_task()

        def sources(self, root: Path) -> list[Path]:
            return [root / "gone"]

    with pytest.raises(AssertionError, match=r"sources returned .*gone, which does not exist"):
        check_dataset(Missing(), tmp_path)


@pytest.mark.parametrize(
    ("augment", "says"),
    [
        (lambda x, rng: x[:, :, 1:], "augment changed the shape"),
        (lambda x, rng: x + torch.rand(1), "depends on global generators"),
    ],
)
def test_an_unsound_augmentation_is_found_out(augment: Any, says: str, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Unsound(Dataset):
        def load(self, root: Path) -> Task:
            return toy_task()

        def augmentation(self) -> Any:
            return augment

    with pytest.raises(AssertionError, match=says):
        check_dataset(Unsound(), tmp_path)


def test_a_cached_data_set_must_not_say_its_augmentation_in_the_task(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Lost(Dataset):
        def load(self, root: Path) -> Task:
            return replace(toy_task(), augment=lambda x, rng: x)

        def sources(self, root: Path) -> list[Path]:
            return [root]

    with pytest.raises(AssertionError, match="return it from augmentation"):
        check_dataset(Lost(), tmp_path)


# --- plugins ------------------------------------------------------------------------------------


class Documented(Untrained):
    """A method."""


class Undocumented(Untrained):
    __doc__ = ""


def plugin_of(register_all: Callable[[Callable[..., None]], None]) -> object:
    class Plugin:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            register_all(register)

    return Plugin()


def test_a_sound_plugin_passes() -> None:
    check_plugin(plugin_of(lambda register: register("mine", Documented)), methods=["mine"])


def test_a_plugin_passes_also_while_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = plugin_of(lambda register: register("mine", Documented))

    class Installed:
        name, module, dist = "mine", "mine", None

        def load(self) -> object:
            return plugin

    monkeypatch.setenv("DEBIASBENCH_PLUGINS", "1")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Installed()])
    check_plugin(plugin, methods=["mine"])


@pytest.mark.parametrize(
    ("register_all", "complaint"),
    [
        (
            lambda register: register("other", Documented),
            "does not register mine among its methods",
        ),
        (lambda register: register("mine", "nowhere:Mine"), "No module named 'nowhere'"),
        (lambda register: register("mine", Undocumented), "has no docstring"),
        (lambda register: register("My", Documented), "names are lower-case letters"),
        (lambda register: 1 / 0, "did not load: ZeroDivisionError"),
        (
            lambda register: [register("mine", Documented), register("erm", Documented)],
            "method 'erm' has the name of a builtin method",
        ),
        (
            lambda register: [register("mine", Documented), torch.set_default_dtype(torch.double)],
            "changed torch's default dtype",
        ),
    ],
)
def test_a_plugin_with_a_fault_does_not_pass(
    register_all: Callable[[Callable[..., None]], None], complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_plugin(plugin_of(register_all), methods=["mine"])


def test_a_module_without_a_marked_hook_does_not_pass() -> None:
    class Forgotten:
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            register("mine", Documented)

    with pytest.raises(AssertionError, match="is not marked as a hook"):
        check_plugin(Forgotten())


class Reads(CrossEntropy):
    """Waits for the device in every step."""

    def forward(self, batch: Any) -> torch.Tensor:
        loss = super().forward(batch)
        return loss * (2.0 if loss.item() > 9 else 1.0)


class Anneals(CrossEntropy):
    """Changes its loss after half of the training, by state that no trial sees."""

    calls: ClassVar[list[int]] = []

    def forward(self, batch: Any) -> torch.Tensor:
        Anneals.calls.append(len(batch))
        return super().forward(batch) * (1.0 if len(Anneals.calls) < 20 else 0.1)


class AnnealsAndSaysSo(Anneals):
    capturable = None


def method_of(objective: Any) -> Method:
    @dataclass(frozen=True)
    class Own(Method):
        def fit(self, lab: Any) -> Any:
            Anneals.calls.clear()
            return lab.train(objective(lab.model()), name="train")

    return Own()


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        (Reads, r"cannot replay .* \(stage 'train': the step waits for the device, in item\)"),
        (Anneals, r"replayed steps give other weights.*Set `capturable` to None"),
        (AnnealsAndSaysSo, "AnnealsAndSaysSo declares that its steps cannot be replayed"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_check_method_warns_of_steps_that_a_gpu_cannot_replay(objective: Any, reason: str) -> None:
    with pytest.warns(UserWarning, match=reason):
        check_method(method_of(objective))


def test_check_model_warns_of_a_network_that_a_gpu_cannot_replay() -> None:
    class Selecting(nn.Module):
        def __init__(self, shape: Shape) -> None:
            super().__init__()
            self.fc = nn.Linear(int(np.prod(shape.input)), shape.classes)

        def forward(self, x: torch.Tensor) -> Any:
            x = x.flatten(1)
            return self.fc(x * (0.5 if bool((x > 2).any()) else 1.0))

    @dataclass(frozen=True)
    class Slow(Model):
        def build(self, shape: Shape) -> nn.Module:
            return Selecting(shape)

    with pytest.warns(UserWarning, match=r"Slow\(\): an NVIDIA GPU cannot replay"):
        check_model(Slow())
