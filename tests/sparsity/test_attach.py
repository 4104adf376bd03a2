"""Loops that people have, first masks, bad input: attaching to them and failing well."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.sparsity import (
    GMP,
    REST,
    SET,
    SNFS,
    GraNet,
    NonFiniteGradient,
    NotAttached,
    RigL,
    SparsityError,
    SparsityTooHigh,
    Static,
    Updater,
    maskable,
)
from debiasbench.sparsity.masks import digest
from tests.sparsity.sparse_net import (
    KEPT,
    OPTIMIZERS,
    STEPS,
    batch,
    begin,
    nothing_off_the_mask,
    small_net,
    train,
)


def test_gradients_masked_before_clipping_are_those_that_are_clipped() -> None:
    net, opt, sparse = begin(REST(0.1, every="4"))
    norms = []
    for step in range(8):
        x, y = batch(step)
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        dense = nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])
        sparse.mask_gradients()
        norms.append((float(nn.utils.clip_grad_norm_(net.parameters(), 1e-3)), float(dense)))
        opt.step()
    assert all(clipped < dense for clipped, dense in norms)
    assert sparse.updates == 2  # growth has seen the dense gradients all the same
    assert sum(sparse.grown.values()) > 0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "sgd fused"])
def test_steps_that_a_grad_scaler_skips_do_not_count(optimizer: str) -> None:
    net, opt, sparse = begin(REST(0.1, every="2"), optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    taken = 0
    for step in range(10):
        x, y = batch(step)
        opt.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(x), y)
        scaler.scale(loss).backward()
        if step in {3, 6}:
            next(net.parameters()).grad[0] = torch.inf  # type: ignore[index]
        scaler.step(opt)
        taken += step not in {3, 6}
        scaler.update()
        assert sparse.step == taken
        nothing_off_the_mask(net, opt, sparse, state=False)
    assert (sparse.step, sparse.updates) == (8, 4)


def test_a_compiled_model_is_compiled_once_and_keeps_to_its_masks() -> None:
    net, opt, sparse = begin(REST(0.1, every="2"))
    frames = []

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> Any:
        frames.append(graph)
        return graph.forward

    compiled = torch.compile(net, backend=backend)
    train(compiled, opt, after=lambda: nothing_off_the_mask(net, opt, sparse, state=True))
    assert len(frames) == 1
    assert sparse.updates > 5
    torch._dynamo.reset()


def test_an_optimizer_that_was_copied_is_noticed_until_it_is_reattached() -> None:
    net, opt, sparse = begin(REST(0.1, every="4"))
    train(net, opt, range(4))
    other = OPTIMIZERS["sgd"](net.parameters())
    other.load_state_dict(opt.state_dict())  # hooks are no part of a state
    with pytest.raises(NotAttached, match=r"call reattach\(optimizer\)"):
        train(net, other, range(4, 7))
    net, opt, sparse = begin(REST(0.1, every="4"))
    train(net, opt, range(4))
    pair = copy.deepcopy((net, opt))
    sparse.reattach(pair[1], model=pair[0])
    train(*pair, range(4, 12))
    assert sparse.step == 12
    nothing_off_the_mask(*pair, sparse, state=True)
    with pytest.raises(SparsityError, match=r"The optimizer does not hold 0.weight"):
        sparse.reattach(OPTIMIZERS["sgd"](small_net().parameters()))


def test_weights_loaded_without_their_masks_are_noticed() -> None:
    net, _, sparse = begin(Static(0.1))
    net.load_state_dict(small_net().state_dict())
    with pytest.raises(NotAttached, match=r"0.weight has non-zero weights off its mask"):
        sparse.state_dict()


def test_weights_that_became_nan_are_not_taken_for_another_optimizers() -> None:
    net, _, sparse = begin(Static(0.1))
    name, p = next(iter(maskable(net).items()))
    with torch.no_grad():
        p[sparse.masks[name]] = torch.nan
    sparse.check()


def test_steps_with_a_closure_are_refused() -> None:
    _, opt, _ = begin(Static(0.1))
    with pytest.raises(SparsityError, match="closure"):
        opt.step(lambda: torch.tensor(0.0))


def test_after_detaching_training_is_dense() -> None:
    net, opt, sparse = begin(Static(0.1))
    sparse.detach()
    train(net, opt, range(3))
    with pytest.raises(NotAttached):
        sparse.check()


def test_snip_takes_the_gradients_of_the_dense_network_at_the_first_step() -> None:
    net, opt, sparse = begin(Static(0.1, init="snip"))
    assert sparse.density == 1.0
    reference, (x, y) = small_net(), batch(0)
    F.cross_entropy(reference(x), y).backward()
    scores = {n: (p.detach() * p.grad).abs() for n, p in maskable(reference).items()}  # type: ignore[operator]
    floor = sorted(float(s) for score in scores.values() for s in score.flatten())[-KEPT]
    train(net, opt, range(1))
    assert sum(int(mask.sum()) for mask in sparse.masks.values()) == KEPT
    for name, mask in sparse.masks.items():
        assert (scores[name][mask] >= floor).all()
    nothing_off_the_mask(net, opt, sparse, state=True)


def test_snip_by_layer_keeps_the_budgets_of_the_distribution() -> None:
    net, opt, sparse = begin(Static(0.1, init="snip_per_layer"))
    train(net, opt, range(1))
    expected = begin(Static(0.1))[2].densities()
    assert sparse.densities() == expected


def test_first_masks_by_magnitude_keep_the_largest_weights() -> None:
    reference = maskable(small_net())
    sparse = begin(Static(0.1, init="magnitude"))[2]
    for name, mask in sparse.masks.items():
        size = reference[name].detach().abs()
        assert size[mask].min() >= size[~mask].max()
    overall = begin(Static(0.1, init="global_magnitude"))[2]
    assert sum(int(mask.sum()) for mask in overall.masks.values()) == KEPT


def test_masks_and_densities_of_ones_own_are_taken() -> None:
    masks = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in maskable(small_net()).items()}
    for mask in masks.values():
        mask.view(-1)[:3] = True
    net, opt, sparse = begin(Static(0.5), masks=masks)
    train(net, opt, range(3))
    assert digest(sparse.masks) == digest(masks)
    with pytest.raises(SparsityError, match=r"Layer '0.weight' has no mask: give one for"):
        begin(Static(0.5), masks={"a": torch.ones(3)})
    densities = {"0.weight": 1.0, "4.weight": 0.1, "6.weight": 0.5}
    sparse = begin(Static(0.5), densities=densities)[2]
    assert sparse.densities() == pytest.approx(densities)


def test_only_included_layers_are_made_sparse() -> None:
    net, _, sparse = begin(SET(0.1, every="4", include=("4.*",)))
    assert list(sparse.masks) == ["4.weight"]
    assert sparse.density == pytest.approx(0.1, abs=1e-3)
    weights = maskable(net)
    assert weights["0.weight"].all()
    assert weights["6.weight"].all()
    with pytest.raises(SparsityError, match="No layer matches 'fc'"):
        begin(SET(0.1, include=("fc",)))


def test_excluded_layers_are_not_counted_and_dense_ones_are() -> None:
    sparse = begin(SET(0.1, every="4", exclude=("0.*",)))[2]
    assert set(sparse.masks) == {"4.weight", "6.weight"}
    assert sparse.density == pytest.approx(0.1, abs=1e-3)
    for updater in (SET, GMP, GraNet, SNFS):
        net, opt, sparse = begin(updater(0.1, every="4", keep_dense=("0.*",)))
        train(net, opt)
        assert sparse.masks["0.weight"].all()
        assert sum(int(mask.sum()) for mask in sparse.masks.values()) == KEPT


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"density": 0.0}, "density is 0.0, but must be > 0 and <= 1"),
        ({"density": 1.5}, "density is 1.5"),
        ({"density": float("nan")}, "density is nan"),
        ({"drop_fraction": -0.1}, "drop_fraction is -0.1, but must be >= 0 and <= 1"),
        ({"init": "snap"}, "Unknown init 'snap'. Did you mean 'snip'"),
        ({"every": "often"}, "every='often'"),
        ({"pattern": "3/4"}, "Unknown pattern"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SparsityError, match=says):
        RigL(**settings)


@pytest.mark.parametrize(
    ("updater", "error"),
    [
        (Static(0.1, distribution="erq"), SparsityError),
        (Static(0.0001), SparsityTooHigh),
        (Static(0.1, exclude=("x",)), SparsityError),
        (RigL(every="2 epochs"), SparsityError),
    ],
)
def test_a_request_that_cannot_be_met_leaves_the_model_untouched(
    updater: Updater, error: type[Exception]
) -> None:
    net = small_net()
    opt = OPTIMIZERS["sgd"](net.parameters())
    with pytest.raises(error):
        updater.attach(net, opt, total_steps=STEPS)
    assert all(torch.equal(v, small_net().state_dict()[k]) for k, v in net.state_dict().items())
    train(net, opt, range(1))  # and no hook stays behind


def test_a_gradient_that_is_not_finite_at_an_update_changes_nothing() -> None:
    net, opt, sparse = begin(RigL(0.1, every="1"))
    before = copy.deepcopy(net.state_dict()), digest(sparse.masks)
    for p in net.parameters():
        p.grad = torch.full_like(p, torch.nan)
    with pytest.raises(NonFiniteGradient, match=r"gradient of 0.weight is not finite at step 0"):
        opt.step()
    assert digest(sparse.masks) == before[1]
    assert all(torch.equal(v, before[0][k]) for k, v in net.state_dict().items())


@dataclass(frozen=True)
class Careless(Updater):
    """Gives back a mask of another shape."""

    changes = True

    def update(self, layers: Any, progress: float) -> dict[str, Tensor]:
        return {layer.name: layer.mask[0] for layer in layers}


def test_an_updater_that_gives_no_mask_is_named() -> None:
    net, opt, _ = begin(Careless(0.1, every="1"))
    with pytest.raises(
        SparsityError, match=r"Careless.update returned no bool mask of shape \(8, 4, 3"
    ):
        train(net, opt)
