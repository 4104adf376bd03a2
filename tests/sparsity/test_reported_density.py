"""What would make the reported density untrue is refused, or constrained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from debiasbench.sparsity import (
    GMP,
    SET,
    SNFS,
    GraNet,
    NotAttached,
    RigL,
    SparsityError,
    SRigL,
    Static,
    Updater,
    global_masks,
    grasp_scores,
    magnitude_scores,
    snip_scores,
)
from debiasbench.sparsity.guards import check_reported
from debiasbench.sparsity.presets import PRESETS
from tests.sparsity.sparse_net import STEPS, batch, small_net, train


@pytest.mark.parametrize(
    "compute",
    [
        lambda net: nn.utils.parametrizations.weight_norm(net[4]),
        lambda net: nn.utils.parametrizations.spectral_norm(net[4]),
        lambda net: nn.utils.parametrizations.orthogonal(net[4]),
        lambda net: prune.l1_unstructured(net[4], "weight", 0.5),
        lambda net: net.__setitem__(4, nn.LazyLinear(20)),
    ],
)
def test_a_layer_whose_weight_is_computed_is_named_and_may_be_excluded(compute: Any) -> None:
    net = small_net()
    compute(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(SparsityError, match=r"4\.weight cannot be made sparse: .* computed"):
        Static(0.1).attach(net, optimizer, total_steps=STEPS)
    sparse = Static(0.1, exclude=("4.weight",)).attach(net, optimizer, total_steps=STEPS)
    assert "4.weight" not in sparse.masks


def test_frozen_layers_keep_every_weight() -> None:
    net = small_net()
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    sparse = RigL(0.1, every="2").attach(net, optimizer, total_steps=STEPS)
    train(net, optimizer)
    assert "0.weight" not in sparse.masks
    assert torch.equal(net[0].weight, before)
    assert sparse.density == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("name", PRESETS)
def test_frozen_layers_are_in_no_mask_of_a_preset(name: str) -> None:
    net = small_net()
    net[0].requires_grad_(False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sparse = PRESETS[name](0.1).attach(net, optimizer, total_steps=STEPS, steps_per_epoch=10)
    before = net[0].weight.clone()
    train(net, optimizer)
    assert list(sparse.masks) == [x.name for x in sparse.stats().layers] == ["4.weight", "6.weight"]
    assert sparse.density == pytest.approx(0.1, abs=1e-3)
    assert torch.equal(net[0].weight, before)


def test_frozen_layers_have_no_scores() -> None:
    net = small_net()
    net[0].requires_grad_(False)
    x, y = batch(0)

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(net(x), y)

    for scores in (
        snip_scores(net, loss),
        snip_scores(net, loss, reinitialise=torch.Generator().manual_seed(0)),
        grasp_scores(net, loss),
        magnitude_scores(net),
    ):
        assert list(scores) == list(global_masks(scores, 0.1)) == ["4.weight", "6.weight"]


@pytest.mark.parametrize("updater", [RigL, SET, SNFS, GMP, GraNet, SRigL])
def test_a_layer_that_is_frozen_later_keeps_its_topology(updater: type[Updater]) -> None:
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sparse = updater(0.1, every="3").attach(net, optimizer, total_steps=STEPS, steps_per_epoch=10)
    train(net, optimizer, range(7))
    net[0].requires_grad_(False)
    net[0].zero_grad()
    weight, mask = net[0].weight.clone(), sparse.masks["0.weight"].clone()
    train(net, optimizer, range(7, STEPS))
    assert torch.equal(net[0].weight, weight)
    assert torch.equal(sparse.masks["0.weight"], mask)
    sparse.check()


def real_density(net: nn.Module, sparse: Any) -> float:
    weights = [dict(net.named_parameters())[name] for name in sparse.masks]
    return sum(int((w != 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def test_a_backward_pass_after_gradients_were_masked_is_masked_too() -> None:
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sparse = RigL(0.1, every="3").attach(net, optimizer, total_steps=STEPS)
    rng = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for _ in range(2):
            x = torch.rand(8, 4, 6, 6, generator=rng)
            nn.functional.cross_entropy(net(x), torch.arange(8) % 5).backward()
            sparse.mask_gradients()
        x = torch.rand(8, 4, 6, 6, generator=rng)
        nn.functional.cross_entropy(net(x), torch.arange(8) % 5).backward()
        optimizer.step()
        assert real_density(net, sparse) <= sparse.density


def test_an_optimizer_whose_step_mixes_weights_leaves_inactive_ones_at_0() -> None:
    class Mixing(torch.optim.SGD):
        """Moves every weight by the mean gradient of its row."""

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None and p.ndim > 1:
                        with torch.no_grad():
                            p.sub_(0.1 * p.grad.mean(-1, keepdim=True).expand_as(p))

    net = small_net()
    optimizer = Mixing(net.parameters(), lr=0.1)
    sparse = Static(0.1).attach(net, optimizer, total_steps=STEPS)
    train(net, optimizer)
    sparse.check()
    assert real_density(net, sparse) <= sparse.density


def test_a_second_training_of_the_same_weights_is_refused_until_the_first_is_detached() -> None:
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    first = RigL(0.1).attach(net, optimizer, total_steps=STEPS)
    with pytest.raises(SparsityError, match=r"call detach\(\) on the first one"):
        RigL(0.1, every="2").attach(net, optimizer, total_steps=STEPS)
    first.detach()
    RigL(0.1).attach(net, optimizer, total_steps=STEPS)


@pytest.mark.parametrize("updater", [Static, RigL, SET])
def test_sharpness_aware_minimisation_with_masked_gradients_stays_sparse(
    updater: type[Updater],
) -> None:
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    sparse = updater(0.1, every="3").attach(net, optimizer, total_steps=STEPS)
    for step in range(9):
        x, y = batch(step)
        climbed: list[torch.Tensor] = []
        for ascent in (True, False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            sparse.mask_gradients()
            with torch.no_grad():
                if ascent:
                    climbed = [0.05 * torch.as_tensor(p.grad) for p in net.parameters()]
                for p, e in zip(net.parameters(), climbed, strict=True):
                    p.add_(e if ascent else -e)
        optimizer.step()
        sparse.check()
    assert sparse.updates == (0 if updater is Static else 3)


def test_sharpness_aware_minimisation_without_masked_gradients_is_told_what_to_do() -> None:
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    Static(0.1).attach(net, optimizer, total_steps=STEPS)
    x, y = torch.rand(8, 4, 6, 6), torch.arange(8) % 5
    nn.functional.cross_entropy(net(x), y).backward()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * p.grad)  # type: ignore[arg-type]
    with pytest.raises(NotAttached, match=r"call mask_gradients\(\) after each backward pass"):
        nn.functional.cross_entropy(net(x), y).backward()


def test_code_that_changes_gradients_after_they_were_masked_changes_no_inactive_weight() -> None:
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sparse = Static(0.1).attach(net, optimizer, total_steps=STEPS)

    def add_noise(optimizer: Any, *_: Any) -> None:
        for p in optimizer.param_groups[0]["params"]:
            p.grad.add_(torch.randn_like(p))

    optimizer.register_step_pre_hook(add_noise)
    train(net, optimizer, range(5), after=sparse.check)


def test_an_optimizer_state_that_is_loaded_later_moves_no_inactive_weight() -> None:
    net, other = small_net(), small_net()
    optimizer, dense = (torch.optim.SGD(n.parameters(), lr=0.1, momentum=0.9) for n in (net, other))
    train(other, dense, range(3))
    sparse = Static(0.1).attach(net, optimizer, total_steps=STEPS)
    optimizer.load_state_dict(dense.state_dict())
    train(net, optimizer, range(3), after=sparse.check)


def test_statistics_of_a_density_that_is_not_real_are_refused() -> None:
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    sparse = Static(0.1).attach(net, optimizer, total_steps=STEPS)
    nn.init.ones_(net[4].weight)
    with pytest.raises(NotAttached, match=r"4\.weight has non-zero weights off its mask"):
        sparse.stats()


def test_what_disagrees_with_a_reported_density_is_named() -> None:
    net = nn.Sequential(nn.Linear(4, 2))
    mask = torch.tensor([[True, False, False, False], [False, True, False, False]])
    with torch.no_grad():
        net[0].weight.copy_(mask)
    reported = {"0.weight": 0.25}
    check_reported(net, {"0.weight": mask}, reported)
    check_reported(net, {}, reported)
    cases: list[tuple[dict[str, torch.Tensor], dict[str, float], str]] = [
        ({"0.weight": mask}, {"0.weight": 0.5}, "2 active weights of 8 .* its density is 0.5"),
        ({}, {"0.weight": 0.125}, "2 weights of 8 that are not 0, more than its density 0.125"),
        ({"0.weight": mask.T}, reported, r"has shape \(2, 4\), but its mask has \(4, 2\)"),
        ({"0.weight": ~mask}, {}, "has 2 weights of 8 that its mask leaves out"),
        ({}, {"1.weight": 0.5}, "the network has no such weight"),
    ]
    for masks, densities, says in cases:
        with pytest.raises(NotAttached, match=says):
            check_reported(net, masks, densities)
