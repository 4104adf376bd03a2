"""Builtin models fit their task shapes and have the published numbers of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from debiasbench.common.errors import DataError, OptionError, UnknownNameError
from debiasbench.common.options import as_dict
from debiasbench.core.model import Model, Shape
from debiasbench.models.cnn import CNN
from debiasbench.models.mlp import MLP
from debiasbench.models.resnet import ResNet18, ResNet50
from debiasbench.models.zoo import Timm, Torchvision
from debiasbench.sparsity import maskable
from debiasbench.testing import check_model

SMALL = Shape(input=(3, 32, 32), classes=5)


@pytest.mark.parametrize(
    "model",
    [
        CNN(),
        CNN(width=8),
        CNN(width=8, depth=1),
        CNN(width=8, depth=5),
        MLP(),
        MLP(hidden=()),
        MLP(depth=5),
        ResNet18(width=8),
        ResNet18(width=8, depth=2),
        ResNet18(width=8, stem="small"),
        ResNet50(width=4),
        Torchvision("mobilenet_v2"),
        Timm("resnet10t"),
    ],
    ids=str,
)
def test_every_builtin_model_passes_check_model(model: CNN) -> None:
    check_model(model, SMALL)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_resnet18_at_its_original_width_equals_torchvision() -> None:
    from torchvision.models import resnet18

    built = ResNet18().build(Shape(input=(3, 224, 224), classes=1000))
    assert parameters(built) == parameters(resnet18())
    # number of weights that can be sparse in the ResNet-18 of REST for ten classes
    ten = ResNet18().build(Shape(input=(3, 32, 32), classes=10))
    assert sum(p.numel() for p in maskable(ten).values()) == 11_172_032


def test_resnet_width_scales_every_stage() -> None:
    narrow = ResNet18(width=16).build(SMALL)
    widths = [narrow.get_submodule(f"layer{i}")[0].conv2.out_channels for i in range(1, 5)]  # type: ignore[index]
    assert widths == [16, 32, 64, 128]
    assert narrow.get_submodule("fc").in_features == 128


@pytest.mark.parametrize(
    ("model", "features"),
    [
        (ResNet18(width=16, depth=1), 16),
        (ResNet18(width=16, depth=3), 64),
        (ResNet50(width=4, depth=2), 32),
        (CNN(width=8, depth=1), 8),
        (CNN(width=8, depth=2), 16),
        (CNN(width=8, depth=5), 32),
        (MLP(depth=2), 100),
        (MLP(depth=5), 16),
    ],
    ids=str,
)
def test_a_network_of_another_depth_has_the_features_of_its_last_stage(
    model: Model, features: int
) -> None:
    assert model.head(model.build(SMALL)).weight.shape == (SMALL.classes, features)


def test_the_depth_of_a_network_is_the_number_of_its_layers_or_stages() -> None:
    def layers(model: Model, kind: type[nn.Module]) -> int:
        return sum(isinstance(module, kind) for module in model.build(SMALL).modules())

    assert [layers(CNN(width=8, depth=d), nn.Conv2d) for d in (1, 3, 5)] == [1, 3, 5]
    assert [layers(MLP(depth=d), nn.Linear) for d in (1, 5)] == [2, 6]
    assert [layers(ResNet18(width=8, depth=d), BasicBlock) for d in (1, 2, 4)] == [2, 4, 8]


@pytest.mark.parametrize("model", [CNN(), MLP(), ResNet18(), ResNet50()], ids=str)
def test_the_usual_depth_is_not_part_of_a_spec(model: Model) -> None:
    assert "depth" not in as_dict(model)  # records from before the option stay valid


def test_a_deeper_mlp_without_hidden_layers_is_refused() -> None:
    with pytest.raises(OptionError, match="depth=2 needs"):
        MLP(hidden=(), depth=2).build(SMALL)


def test_the_small_stem_keeps_the_resolution() -> None:
    network = ResNet18(width=8, stem="small").build(SMALL)
    shapes: list[torch.Size] = []
    network.get_submodule("layer1").register_forward_hook(lambda m, i, o: shapes.append(o.shape))
    network(torch.zeros(1, 3, 32, 32))
    assert shapes == [(1, 8, 32, 32)]


def test_one_channel_images_are_accepted() -> None:
    grey = Shape(input=(1, 28, 28), classes=10)
    for model in (CNN(), MLP(), ResNet18(width=8), Timm("resnet10t")):
        assert model.build(grey).eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_transformer_of_timm_gets_the_image_size_of_the_task() -> None:
    network = Timm("test_vit").build(Shape(input=(3, 32, 32), classes=4))
    assert network.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


def test_the_mlp_accepts_samples_of_any_shape() -> None:
    assert MLP().build(Shape(input=(30,), classes=2))(torch.zeros(4, 30)).shape == (4, 2)
    sizes = [m.out_features for m in MLP().build(SMALL) if isinstance(m, nn.Linear)]  # type: ignore[attr-defined]
    assert sizes == [100, 100, 16, 5]


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (CNN(), Shape((30,), 2), "--model mlp"),
        (CNN(), Shape((3, 4, 4), 2), "at least 8x8"),
        (ResNet18(), Shape((30,), 2), "takes images"),
        (ResNet18(width=32, pretrained=True), SMALL, "require width=64"),
        (Torchvision("resnet18"), Shape((1, 28, 28), 2), "three-channel"),
        (Timm("resnet18"), Shape((30,), 2), "takes images"),
    ],
)
def test_a_model_refuses_unsuitable_samples(model: CNN, shape: Shape, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model.build(shape)


@pytest.mark.parametrize(
    ("model", "library"),
    [
        (Timm("resnet18", pretrained=True), "timm.create_model"),
        (Torchvision("resnet18", pretrained=True), "torchvision.models.get_model"),
        (ResNet18(pretrained=True), "torchvision.models._api.WeightsEnum.get_state_dict"),
    ],
)
def test_weights_that_cannot_be_downloaded_are_an_error_with_advice(
    model: Timm, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_args: object, **_more: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(library, offline)
    with pytest.raises(DataError, match=r"ConnectionError.*leave out model\.pretrained"):
        model.build(SMALL)


def test_a_pretrained_network_gets_a_new_head_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torchvision import models

    fetched = models.mobilenet_v2()  # in place of one with downloaded weights
    first = next(fetched.parameters()).clone()
    monkeypatch.setattr(models, "get_model", lambda name, weights: fetched)
    network = Torchvision("mobilenet_v2", pretrained=True).build(SMALL)
    assert torch.equal(next(network.parameters()), first)
    assert network.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_pretrained_residual_networks_load_the_weights_of_torchvision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torchvision.models import ResNet18_Weights, resnet18

    state = resnet18().state_dict()
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda self, check_hash: state)
    network = ResNet18(pretrained=True).build(SMALL)
    assert torch.equal(network.get_parameter("conv1.weight"), state["conv1.weight"])
    assert network.get_parameter("fc.weight").shape == (5, 512)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_heads_return_only_logits_in_training(name: str) -> None:
    network = Torchvision(name).build(Shape((3, 96, 96), 5)).train()
    assert network(torch.zeros(2, 3, 96, 96)).shape == (2, 5)


@pytest.mark.parametrize("model", [Torchvision("resnet81"), Timm("resnet81")])
def test_an_unknown_name_of_a_library_is_refused_with_a_guess(model: Timm) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet18'"):
        model.build(SMALL)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_an_unknown_name_of_a_library_has_a_short_message(library: str) -> None:
    model = Timm if library == "timm" else Torchvision
    with pytest.raises(UnknownNameError) as error:
        model("nosuchmodel").build(SMALL)
    message = str(error.value)
    assert message.startswith(f"Unknown {library} model 'nosuchmodel'. ")
    assert "list_models() lists them" in message
    assert len(message) < 200
    with pytest.raises(UnknownNameError, match=r"Did you mean 'resnet18'\?"):
        model("RESNET18").build(SMALL)


@pytest.mark.parametrize(
    "model",
    [
        ResNet18(pretrained=True),
        ResNet50(pretrained=True),
        Timm("resnet10t", pretrained=True),
        Torchvision("mobilenet_v3_small", pretrained=True),
    ],
)
def test_a_stored_network_is_built_without_a_download(
    model: Timm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_args: object, **_more: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("socket.socket.connect", offline)
    network = model.skeleton(SMALL)
    assert network.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_the_skeleton_of_a_pretrained_network_is_the_same_network(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    state = models.get_model(name, aux_logits=True, init_weights=False).state_dict()
    monkeypatch.setattr(
        "torchvision.models._api.WeightsEnum.get_state_dict", lambda *_args, **_more: state
    )
    model = Torchvision(name, pretrained=True)
    built, skeleton = model.build(SMALL), model.skeleton(SMALL)
    assert list(skeleton.state_dict()) == list(built.state_dict())
    assert skeleton.transform_input is built.transform_input is True
    skeleton.load_state_dict(built.state_dict())


def test_a_network_without_a_linear_layer_is_an_error_with_advice() -> None:
    with pytest.raises(OptionError, match="override `head` in CNN"):
        CNN().head(nn.Conv2d(3, 3, 3))
