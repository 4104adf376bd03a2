"""FLOPs agree with those that PyTorch counts, and with the formula of RigL."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from debiasbench.core.model import Shape
from debiasbench.models.cnn import CNN
from debiasbench.sparsity import (
    GMP,
    REST,
    SET,
    RigL,
    Static,
    Updater,
    count_flops,
)
from tests.sparsity.sparse_net import (
    STEPS,
    batch,
    begin,
    small_net,
    train,
)


def test_layer_flops_add_up_to_those_of_torch_and_to_the_formula() -> None:
    net = CNN().build(Shape(input=(3, 28, 28), classes=10))
    with count_flops(net) as flops:
        net(torch.zeros(2, 3, 28, 28))
    macs = 14 * 14 * 3072 + 7 * 7 * 131072 + 3 * 3 * 524288 + 2560
    assert flops.total == sum(flops.by_parameter.values()) == 2 * 2 * macs


def test_layer_flops_of_transposed_and_grouped_convolutions_and_attention_agree_with_torch() -> (
    None
):
    convolutions = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2), nn.ConvTranspose2d(8, 3, 3, stride=2)
    )
    with count_flops(convolutions) as flops:
        convolutions(torch.zeros(2, 4, 9, 9))
    assert flops.total == sum(flops.by_parameter.values())
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.zeros(3, 5, 8)
    with count_flops(attention) as flops:
        attention(x, x, x, need_weights=True)
    scores = 2 * 2 * 3 * 5 * 5 * 8  # two products of 3 x 2 heads x 5 x 5 x 4, no weights in them
    assert flops.total == sum(flops.by_parameter.values()) + scores


def test_training_flops_of_dense_training_are_those_that_torch_counts() -> None:
    net, opt, sparse = begin(Static(1.0))
    x, y = batch(0)
    with count_flops(net) as flops:
        net(x)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(net(x), y).backward()
    opt.step()
    cost = sparse.training_flops(flops)
    assert cost.total == counter.get_total_flops()
    assert cost.input_gradient < cost.forward == cost.weight_gradient  # none of the first layer


@pytest.mark.parametrize(
    ("updater", "dense"),
    [
        (RigL(0.1, every="4", distribution="uniform"), 7),
        (SET(0.1, distribution="uniform"), 0),
        (REST(0.1, every="4", optimizer_state="dense", distribution="uniform"), STEPS),
    ],
)
def test_training_flops_follow_rigls_formula(updater: Updater, dense: int) -> None:
    net, opt, sparse = begin(updater)
    x, _ = batch(0)
    with count_flops(net) as flops:
        net(x)
    train(net, opt)
    kept = sum(sparse.densities()[n] * f for n, f in flops.by_parameter.items())
    full = flops.total
    expected = 3 * kept + dense / STEPS * (full - kept)  # that many weight gradients are dense
    assert 3 * full - sparse.saved_flops(flops.by_parameter) == pytest.approx(expected)
    cost = sparse.training_flops(flops)
    assert cost.forward == pytest.approx(kept)
    assert cost.weight_gradient == pytest.approx(kept + dense / STEPS * (full - kept))


def test_flops_are_summed_over_the_masks_of_every_step() -> None:
    net, opt, sparse = begin(GMP(0.1, every="4"))
    x, _ = batch(0)
    with count_flops(net) as flops:
        net(x)
    spent = []
    densities = [sparse.densities()]
    train(net, opt, after=lambda: densities.append(sparse.densities()))
    for at in densities[:STEPS]:
        spent.append(sum(at[n] * f for n, f in flops.by_parameter.items()))
    assert sparse.training_flops(flops).forward == pytest.approx(sum(spent) / STEPS)


def test_flops_of_samples_without_a_batch_and_of_named_inputs_are_those_of_torch() -> None:
    for layer, size in (
        (nn.Conv2d(4, 8, 3, groups=2), (4, 9, 9)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 5, 5)),
        (nn.Linear(4, 8), (4,)),
    ):
        for shape in (size, (2, *size)):
            with count_flops(layer) as flops:
                layer(input=torch.zeros(shape))
            assert flops.total == flops.by_parameter["weight"] > 0


def test_a_sparse_transposed_convolution_costs_its_active_weights_at_every_input_position() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2))
    sparse = Static(0.25).attach(net, torch.optim.SGD(net.parameters(), 0.1), total_steps=1)
    with count_flops(net) as flops:
        net(torch.zeros(2, 4, 5, 5))
    active = int(sparse.masks["0.weight"].sum())
    cost = 2 * 2 * 5 * 5 * active
    sparse.due(0)
    assert sparse.training_flops(flops).forward == cost
    assert sparse.training_flops(flops).weight_gradient == cost
    assert 3 * flops.total - sparse.saved_flops(flops.by_parameter) == pytest.approx(3 * cost)


def test_frozen_layers_cost_no_weight_gradients() -> None:
    net = small_net()
    net[0].requires_grad_(False)
    sparse = Static(1.0).attach(net, torch.optim.SGD(net.parameters(), 0.1), total_steps=1)
    net.eval()[1].requires_grad_(False)
    x, y = batch(0)
    with count_flops(net) as flops:
        net(x)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(net(x), y).backward()
    sparse.due(0)
    assert sparse.training_flops(flops).total == counter.get_total_flops()


def test_a_weight_that_two_layers_share_is_counted_under_the_name_of_its_mask() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    net[2].weight = net[0].weight
    with count_flops(net) as flops:
        net(torch.zeros(3, 6))
    assert flops.by_parameter == {"0.weight": 2 * 2 * 3 * 36} == {"0.weight": flops.total}
