"""Layers in CSR compute what dense layers compute, load state dicts, and are not trained."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from debiasbench.sparsity.csr import to_csr
from debiasbench.sparsity.csr_layers import CsrConv2d, CsrLinear
from debiasbench.sparsity.errors import SparsityError
from debiasbench.sparsity.params import maskable
from tests.sparsity.csr_nets import always, built, conv_net, convert, masked, mlp
from tests.sparsity.random_tensors import random


@pytest.mark.parametrize("density", [0.02, 0.15, 1.0])  # of 8 filters: 15, 73 and 100 % read
@torch.no_grad()
def test_convolutions_copy_only_the_places_read_if_these_are_few(density: float) -> None:
    model = built(conv_net).eval()
    masks = masked(model, density)
    x = random(2, 3, 9, 11, dtype=torch.float64)
    report = to_csr(model, masks, x, repeats=1, choose=always)
    first = report.model.get_submodule("0")
    assert isinstance(first, CsrConv2d)
    places = masks["0.weight"].any(0)  # by any filter
    if density > 0.1:
        assert places.float().mean() > 0.5
        assert first.read is None
        assert first.shape == (8, 27)
    else:
        assert first.read is not None
        assert first.read.tolist() == places.nonzero().T.tolist()
        assert first.shape == (8, int(places.sum()))


@pytest.mark.parametrize("shape", [(27,), (2, 3, 27), (0, 27), (5, 0, 27)])
@torch.no_grad()
def test_a_linear_layer_in_csr_takes_inputs_of_any_rank(shape: tuple[int, ...]) -> None:
    layer = built(lambda: nn.Linear(27, 4))
    mask = masked(layer, 0.3)["weight"]
    x = random(*shape, dtype=torch.float64)
    output = CsrLinear(layer, mask)(x)
    torch.testing.assert_close(output, layer(x), atol=1e-12, rtol=0)
    assert output.is_contiguous()


@torch.no_grad()
def test_a_convolution_in_csr_takes_an_image_without_a_batch() -> None:
    layer = built(lambda: nn.Conv2d(3, 4, 3))
    mask = masked(layer, 0.3)["weight"]
    x = random(3, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(CsrConv2d(layer, mask)(x), layer(x), atol=1e-12, rtol=0)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@torch.no_grad()
def test_a_convolution_in_csr_pads_an_even_kernel_more_on_one_side() -> None:
    layer = built(lambda: nn.Conv2d(3, 4, (2, 4), padding="same", dilation=(1, 3)))
    mask = masked(layer, 0.3)["weight"]
    x = random(2, 3, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(CsrConv2d(layer, mask)(x), layer(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("assign", [False, True])
@torch.no_grad()
def test_a_state_dict_goes_into_another_converted_network(assign: bool) -> None:
    one, dense, x = convert()
    model = built(mlp)
    masks = {
        name: mask.flatten().roll(5).view(mask.shape)  # the same number of weights, in other places
        for name, mask in masked(model, 0.1).items()
    }
    for name, p in maskable(model).items():
        p.copy_(masks[name] * 0.5)
    other = to_csr(model, masks, x, repeats=1, choose=always).model
    assert not torch.allclose(other(x), dense(x))
    state = one.model.state_dict()
    assert set(state) == {
        "0.crow",
        "0.col",
        "0.values",
        "0.bias",
        "2.crow",
        "2.col",
        "2.values",
        "4.crow",
        "4.col",
        "4.values",
        "4.bias",
    }
    assert {state["0.crow"].dtype, state["0.col"].dtype} == {torch.int32}
    other.load_state_dict(state, assign=assign)
    assert torch.equal(other(x), one.model(x))


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_dict_that_is_not_a_csr_matrix_is_refused_when_it_is_used(assign: bool) -> None:
    report, _, x = convert()
    state = {name: values.clone() for name, values in report.model.state_dict().items()}
    state["2.col"][0] = 40  # of 40 columns
    report.model.load_state_dict(state, assign=assign)
    with pytest.raises(SparsityError, match="not a valid CSR matrix"):
        report.model(x)


@torch.no_grad()
def test_a_converted_network_can_change_its_type_and_be_copied_after_it_ran() -> None:
    report, dense, x = convert()
    other = copy.deepcopy(report.model)
    other.get_submodule("0").values.zero_()
    torch.testing.assert_close(report.model(x), dense(x))
    assert not torch.allclose(other(x), dense(x))
    output = report.model.float()(x.float())
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, dense.float()(x.float()))


def test_training_with_layers_in_csr_is_refused() -> None:
    report, dense, x = convert()
    report.model.train()
    with pytest.raises(SparsityError, match="cannot be trained"):
        report.model(x)
    with torch.no_grad():
        torch.testing.assert_close(report.model(x), dense(x))


def test_gradients_of_the_input_pass_through_layers_in_csr() -> None:
    report, dense, x = convert()
    gradients = []
    for model in (report.model, dense):
        leaf = x.clone().requires_grad_()
        model(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
