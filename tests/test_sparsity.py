"""Exact budgets, exact exchanges, and nothing off the mask."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.model import Shape
from debiasbench.models.cnn import CNN
from debiasbench.sparsity import (
    DynamicSparsity,
    SparsityTooHigh,
    allocate,
    count_flops,
    drop_and_grow,
    maskable,
)

CNN_SHAPES = {
    "conv1": (64, 3, 4, 4),
    "conv2": (128, 64, 4, 4),
    "conv3": (256, 128, 4, 4),
    "fc": (10, 256),
}


def test_erk_budgets_of_the_cnn_of_rest() -> None:
    # density 0.0005 of 660,992 weights; shares in proportion to sum(shape): 75, 200, 392, 266
    assert allocate(CNN_SHAPES, 0.0005) == {"conv1": 26, "conv2": 71, "conv3": 139, "fc": 94}
    full = allocate(CNN_SHAPES, 0.05)
    assert (full["conv1"], full["fc"]) == (3072, 2560)  # both dense, as in the released code


def test_uniform_budgets_share_one_density() -> None:
    assert allocate({"a": (10, 10), "b": (20, 10)}, 0.1, "uniform") == {"a": 10, "b": 20}


@pytest.mark.parametrize("distribution", ["erk", "uniform"])
def test_the_sum_of_budgets_is_the_request_for_any_shapes(distribution: str) -> None:
    rng = random.Random(0)
    for _ in range(300):
        shapes = {
            f"p{i}": tuple(rng.randint(1, 40) for _ in range(rng.choice([2, 4])))
            for i in range(rng.randint(1, 8))
        }
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        weights = sum(sizes.values())
        density = rng.uniform(len(shapes) / weights, 1)
        if round(density * weights) < len(shapes):
            continue
        budgets = allocate(shapes, density, distribution)  # type: ignore[arg-type]
        assert sum(budgets.values()) == round(density * weights)
        assert all(1 <= budgets[name] <= sizes[name] for name in shapes)


def test_erk_agrees_with_the_capping_loop_of_its_authors() -> None:
    # restated from Evci et al., section 3: layers that would exceed density 1 become dense
    density, sizes = 0.2, {n: math.prod(s) for n, s in CNN_SHAPES.items()}
    raw = {n: sum(s) / math.prod(s) for n, s in CNN_SHAPES.items()}
    dense: set[str] = set()
    while True:
        free = [n for n in sizes if n not in dense]
        target = density * sum(sizes.values()) - sum(sizes[n] for n in dense)
        factor = target / sum(raw[n] * sizes[n] for n in free)
        over = [n for n in free if factor * raw[n] > 1]
        if not over:
            break
        dense |= {max(over, key=lambda n: raw[n])}
    expected = {n: sizes[n] if n in dense else factor * raw[n] * sizes[n] for n in sizes}
    assert allocate(CNN_SHAPES, density) == pytest.approx(expected, abs=1)


def test_density_one_keeps_everything() -> None:
    assert allocate(CNN_SHAPES, 1.0) == {n: math.prod(s) for n, s in CNN_SHAPES.items()}


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, float("nan")])
def test_a_density_outside_its_range_is_refused(density: float) -> None:
    with pytest.raises(ValueError, match=r"density must lie in \(0, 1\]"):
        allocate(CNN_SHAPES, density)


def test_an_infeasible_density_names_the_smallest_feasible_one() -> None:
    with pytest.raises(SparsityTooHigh, match=r"smallest feasible density is 0\.02"):
        allocate({"a": (10, 10), "b": (10, 10), "c": (1, 100), "d": (100, 1)}, 0.001, min_nnz=2)


@pytest.mark.parametrize(
    ("mask", "drop", "grow", "k", "expected", "new"),
    [  # scores one digit a weight
        ("1100", "1900", "0012", 1, "0101", "0001"),
        ("1100", "1900", "0000", 1, "1100", "0000"),  # ties: the lower index, here the dropped
        ("1100", "1900", "9012", 1, "1100", "0000"),  # regrown, so it is not new
        ("1110", "0000", "0000", 2, "1110", "0000"),
        ("1010", "5070", "0302", 0, "1010", "0000"),
        ("1111", "4321", "0000", 1, "1111", "0000"),  # a full layer can only take back
    ],
)
def test_drop_and_grow_on_a_table(
    mask: str, drop: str, grow: str, k: int, expected: str, new: str
) -> None:
    def read(digits: str) -> Tensor:
        return torch.tensor([float(d) for d in digits])

    got, fresh = drop_and_grow(read(mask).bool(), read(drop), read(grow), k)
    assert "".join(str(int(v)) for v in got) == expected
    assert "".join(str(int(v)) for v in fresh) == new


@pytest.mark.parametrize("scores", ["random", "zero", "tied", "nan"])
def test_drop_and_grow_conserves_the_count_whatever_the_scores(scores: str) -> None:
    rng = torch.Generator().manual_seed(0)
    for _ in range(100):
        shape = (int(torch.randint(1, 9, (), generator=rng)), 7)
        mask = torch.rand(shape, generator=rng) < 0.4
        active = int(mask.sum())
        if not active:
            continue
        k = int(torch.randint(0, active + 1, (), generator=rng))
        score = torch.rand(shape, generator=rng)
        score = {
            "random": score,
            "zero": score * 0,
            "tied": score.round(),
            "nan": score.where(score > 0.5, torch.nan),
        }[scores]
        new, fresh = drop_and_grow(mask, score, score.flip(0), k)
        assert int(new.sum()) == active
        assert int((mask & ~new).sum()) == int(fresh.sum()) <= k
        assert not (fresh & mask).any()


def small_net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
            nn.Linear(8 * 36, 5),
        )  # fmt: skip


def sparse_training(
    net: nn.Module,
    sparsity: DynamicSparsity,
    steps: int = 40,
    optimizer: str = "SGD",
    seed: int = 0,
    check: bool = True,
) -> torch.optim.Optimizer:
    settings = {"momentum": 0.9} if optimizer == "SGD" else {}
    opt = getattr(torch.optim, optimizer)(net.parameters(), lr=0.01, weight_decay=0.1, **settings)
    rng = torch.Generator().manual_seed(1)
    sparsity.on_start(net, opt, steps=steps, seed=seed)
    budgets = {n: int(m.sum()) for n, m in sparsity.masks.items()}
    for step in range(steps):
        x, y = torch.rand(16, 3, 6, 6, generator=rng), torch.randint(5, (16,), generator=rng)
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        sparsity.before_step(step)
        opt.step()
        sparsity.after_step(step)
        if check:
            assert {n: int(m.sum()) for n, m in sparsity.masks.items()} == budgets
            for name, p in maskable(net).items():
                off = ~sparsity.masks[name]
                assert not p[off].any()
                if sparsity.optimizer_state == "mask":
                    assert p.grad is not None
                    state = [p.grad, *opt.state[p].values()]
                    assert not any(s[off].any() for s in state if s.shape == p.shape)
    return opt


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("grow", ["gradient", "random"])
def test_budgets_hold_and_everything_off_the_mask_is_zero_after_every_step(
    optimizer: str, grow: str
) -> None:
    sparsity = DynamicSparsity(density=0.1, grow=grow, update_every=4)  # type: ignore[arg-type]
    sparse_training(small_net(), sparsity, optimizer=optimizer)
    assert sparsity.updates == 7  # after steps 4, 8, ..., 28; 30 is three quarters


def test_the_released_state_lets_momentum_run_on_off_the_mask() -> None:
    sparsity = DynamicSparsity(density=0.1, optimizer_state="dense", update_every=4)
    net = small_net()
    opt = sparse_training(net, sparsity)
    name, p = next(iter(maskable(net).items()))
    assert opt.state[p]["momentum_buffer"][~sparsity.masks[name]].any()


def test_the_topology_moves_and_depends_on_the_seed_alone() -> None:
    def masks(seed: int) -> dict[str, Tensor]:
        sparsity = DynamicSparsity(density=0.1, grow="random", update_every=4)
        sparse_training(small_net(), sparsity, seed=seed)
        return sparsity.masks

    with torch.random.fork_rng():
        torch.manual_seed(5)
        first = masks(0)
    second, other = masks(0), masks(1)
    assert all(torch.equal(m, second[n]) for n, m in first.items())
    assert any(not torch.equal(m, other[n]) for n, m in first.items())


def test_density_one_is_plain_training_bit_for_bit() -> None:
    sparse, dense = small_net(), small_net()
    sparse_training(sparse, DynamicSparsity(density=1.0, update_every=4))
    opt = torch.optim.SGD(dense.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    rng = torch.Generator().manual_seed(1)
    for _ in range(40):
        x, y = torch.rand(16, 3, 6, 6, generator=rng), torch.randint(5, (16,), generator=rng)
        opt.zero_grad()
        F.cross_entropy(dense(x), y).backward()
        opt.step()
    other = dense.state_dict()
    assert all(torch.equal(v, other[k]) for k, v in sparse.state_dict().items())


def test_a_drop_fraction_of_zero_keeps_the_topology() -> None:
    sparsity = DynamicSparsity(
        density=0.1, drop_fraction=0.0, final_drop_fraction=0.0, update_every=4
    )
    net = small_net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    sparsity.on_start(net, opt, steps=40, seed=0)
    start = {n: m.clone() for n, m in sparsity.masks.items()}
    sparse_training(small_net(), sparsity)
    assert all(torch.equal(m, start[n]) for n, m in sparsity.masks.items())


def test_an_update_drops_the_smallest_weights_and_grows_the_largest_gradients() -> None:
    net = nn.Linear(10, 4, bias=False)
    sparsity = DynamicSparsity(density=0.25, update_every=1, stop=1.0)
    opt = torch.optim.SGD(net.parameters(), lr=0.0)
    sparsity.on_start(net, opt, steps=10, seed=0)
    before = sparsity.masks["weight"].clone()
    size = net.weight.detach().abs().flatten()
    net.weight.grad = torch.arange(40.0).view(4, 10)
    sparsity.before_step(0)
    sparsity.after_step(0)
    after = sparsity.masks["weight"]
    k = math.ceil(sparsity.drop_fraction_at(0) * 10)
    active = before.flatten().nonzero()[:, 0]
    kept = active[size[active].argsort()[k:]]  # the smallest go
    assert 0 < k < len(active)
    free = [i for i in range(39, -1, -1) if i not in kept.tolist()][:k]
    assert sorted(after.flatten().nonzero()[:, 0].tolist()) == sorted([*kept.tolist(), *free])


def test_the_drop_fraction_falls_along_a_cosine_until_the_stop() -> None:
    sparsity = DynamicSparsity(density=0.5, drop_fraction=0.4, final_drop_fraction=0.1, stop=0.5)
    sparsity.on_start(small_net(), torch.optim.SGD(small_net().parameters()), steps=100, seed=0)
    assert sparsity.drop_fraction_at(-1) == pytest.approx(0.4)
    assert sparsity.drop_fraction_at(24) == pytest.approx(0.25)
    assert sparsity.drop_fraction_at(49) == pytest.approx(0.1)
    assert sparsity.drop_fraction_at(90) == pytest.approx(0.1)


def test_a_state_brings_back_masks_and_counters() -> None:
    net, sparsity = small_net(), DynamicSparsity(density=0.1, update_every=4)
    sparse_training(net, sparsity, check=False)
    fresh = DynamicSparsity(density=0.1, update_every=4)
    fresh.on_start(small_net(), torch.optim.SGD(net.parameters()), steps=40, seed=9)
    fresh.load_state_dict(sparsity.state_dict())
    assert fresh.updates == sparsity.updates
    assert all(torch.equal(m, fresh.masks[n]) for n, m in sparsity.masks.items())
    other = DynamicSparsity(density=0.5)
    other.on_start(nn.Linear(3, 2), torch.optim.SGD(net.parameters()), steps=4, seed=0)
    with pytest.raises(ValueError, match="other layers"):
        other.load_state_dict(sparsity.state_dict())


def test_maskable_weights_are_chosen_by_module_and_shared_ones_counted_once() -> None:
    net = nn.ModuleDict(
        {"a": nn.Conv1d(2, 3, 2), "norm": nn.LayerNorm(3), "emb": nn.Embedding(4, 3),
         "b": nn.Linear(3, 3), "c": nn.Linear(3, 3)}
    )  # fmt: skip
    net["c"].weight = net["b"].weight  # type: ignore[assignment]
    assert list(maskable(net)) == ["a.weight", "b.weight"]
    assert maskable(nn.BatchNorm1d(3)) == {}


def test_a_module_with_nothing_to_make_sparse_is_refused() -> None:
    net = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="no convolution or linear layer"):
        DynamicSparsity(density=0.5).on_start(
            net, torch.optim.SGD(net.parameters()), steps=4, seed=0
        )


def test_layer_flops_add_up_to_those_of_torch_and_to_the_formula() -> None:
    net = CNN().build(Shape(input=(3, 28, 28), classes=10))
    with count_flops(net) as flops:
        net(torch.zeros(2, 3, 28, 28))
    macs = 14 * 14 * 3072 + 7 * 7 * 131072 + 3 * 3 * 524288 + 2560
    assert flops.total == sum(flops.by_parameter.values()) == 2 * 2 * macs


def test_saved_training_flops_follow_rigls_formula() -> None:
    forward = {"0.weight": 100.0, "4.weight": 300.0}
    net = small_net()
    sparsity = DynamicSparsity(density=0.1, distribution="uniform", update_every=4)
    sparse_training(net, sparsity)
    d = sparsity.densities()
    sparse = sum(d[n] * f for n, f in forward.items())
    dense_updates = 7 / 40  # whose weight gradient is dense
    expected = 3 * sparse + dense_updates * (400 - sparse)
    assert 3 * 400 - sparsity.saved_flops(forward) == pytest.approx(expected)
