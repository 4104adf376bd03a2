"""The algorithms keep exact budgets after every step, and exchange the right weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from debiasbench.sparsity import (
    GMP,
    ITOP,
    MEST,
    REST,
    SET,
    SNFS,
    GraNet,
    Layer,
    RESTReleased,
    RigL,
    RigLReleased,
    SparsityError,
    SparsityTooHigh,
    SRigL,
    Static,
    Updater,
    maskable,
)
from debiasbench.sparsity.masks import digest
from tests.sparsity.sparse_net import (
    KEPT,
    OPTIMIZERS,
    STEPS,
    begin,
    nothing_off_the_mask,
    small_net,
    train,
)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize(
    "updater",
    [
        RigL(0.1, every="4", optimizer_state="mask"),
        REST(0.1, every="4"),
        SET(0.1, every="4"),
        ITOP(0.1, every="4", grow="unexplored"),
        MEST(0.1, every="4"),
        Static(0.1),
    ],
    ids=lambda u: type(u).__name__,
)
def test_budgets_hold_and_everything_off_the_mask_is_zero_after_every_step(
    updater: Updater, optimizer: str
) -> None:
    net, opt, sparse = begin(updater, optimizer)
    budgets = {name: int(mask.sum()) for name, mask in sparse.masks.items()}
    assert sum(budgets.values()) == KEPT

    def check() -> None:
        assert {name: int(mask.sum()) for name, mask in sparse.masks.items()} == budgets
        nothing_off_the_mask(net, opt, sparse, state=True)

    before = digest(sparse.masks)
    train(net, opt, after=check)
    assert (digest(sparse.masks) != before) == updater.changes
    assert sparse.step == STEPS


@pytest.mark.parametrize("state", ["reset_new", "dense"])
def test_state_of_inactive_weights_may_run_on_but_the_weights_stay_zero(state: Any) -> None:
    net, opt, sparse = begin(REST(0.1, every="4", optimizer_state=state))
    train(net, opt, after=lambda: nothing_off_the_mask(net, opt, sparse, state=False))
    momenta = {n: opt.state[p]["momentum_buffer"] for n, p in maskable(net).items()}
    assert any(m[~sparse.masks[n]].any() for n, m in momenta.items())


def test_reset_new_starts_grown_weights_without_momentum_and_leaves_dropped_ones() -> None:
    net, opt, sparse = begin(REST(0.1, every="4", optimizer_state="reset_new"))
    seen = []

    def check() -> None:
        if sparse.updates and not seen:
            for name, p in maskable(net).items():
                grown = sparse.masks[name] & ~first[name]
                dropped = first[name] & ~sparse.masks[name]
                momentum = opt.state[p]["momentum_buffer"]
                assert not momentum[grown].any()
                seen.append(bool(momentum[dropped].any()))

    first = {name: mask.clone() for name, mask in sparse.masks.items()}
    train(net, opt, after=check)
    assert any(seen)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_snfs_moves_weights_between_layers_and_keeps_the_whole_count(optimizer: str) -> None:
    net, opt, sparse = begin(SNFS(0.1, every="4"), optimizer)
    before = sparse.densities()
    train(net, opt, after=lambda: nothing_off_the_mask(net, opt, sparse, state=False))
    assert sum(int(mask.sum()) for mask in sparse.masks.values()) == KEPT
    assert sparse.densities() != before


def test_snfs_without_momentum_says_what_it_needs() -> None:
    net = small_net()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    SNFS(0.1, every="4").attach(net, opt, total_steps=STEPS)
    with pytest.raises(SparsityError, match="give SGD a momentum"):
        train(net, opt)


@pytest.mark.parametrize("updater", [GMP(0.1, every="4"), GraNet(0.1, every="4")])
def test_pruning_methods_end_at_exactly_the_density_asked_for(updater: Updater) -> None:
    net, opt, sparse = begin(updater)
    densities = [sparse.density]
    assert densities[0] == pytest.approx(updater.first_density(), abs=1e-3)
    train(net, opt, after=lambda: densities.append(sparse.density))
    assert sum(int(mask.sum()) for mask in sparse.masks.values()) == KEPT
    assert densities == sorted(densities, reverse=True)
    assert len(set(densities)) == 9  # 4, 8, ..., 28 and the stop at 30, after the beginning
    nothing_off_the_mask(net, opt, sparse, state=True)


@pytest.mark.parametrize(
    "updater",
    [
        GMP(1e-6, every="4"),
        GraNet(1e-6, every="4"),
        GraNet(0.05, every="4", keep_dense=("*",)),
    ],
)
def test_a_density_that_pruning_cannot_reach_is_an_error_at_once(updater: Updater) -> None:
    with pytest.raises(SparsityTooHigh, match="smallest feasible density"):
        begin(updater)


def test_granet_exchanges_beside_pruning() -> None:
    net, opt, sparse = begin(GraNet(0.1, every="4"))
    train(net, opt)
    assert sum(sparse.grown.values()) > 0
    net, opt, sparse = begin(GMP(0.1, every="4"))
    train(net, opt)
    assert sum(sparse.grown.values()) == 0


@pytest.mark.parametrize(
    "updater", [RigL(0.5, pattern="2:4", every="4", rounding="up"), SET(0.5, pattern="1:2")]
)
def test_patterns_of_n_in_m_survive_every_update(updater: Updater) -> None:
    net, opt, sparse = begin(updater)
    n, m = map(int, updater.pattern.split(":"))

    def check() -> None:
        for mask in sparse.masks.values():
            assert (mask.movedim(1, -1).reshape(-1, m).sum(1) == n).all()

    before = digest(sparse.masks)
    train(net, opt, after=check)
    assert digest(sparse.masks) != before


def test_a_pattern_and_another_density_contradict_each_other() -> None:
    with pytest.raises(SparsityError, match=r"2:4 has density 0.5, not 0.1: set density=0.5"):
        begin(RigL(0.1, pattern="2:4"))
    with pytest.raises(SparsityError, match="ranks the weights of all layers together"):
        begin(RigL(0.1, pattern="constant_fan_in", init="global_magnitude"))


def test_srigl_ablates_neurons_and_gives_the_others_equal_fan_in() -> None:
    net, opt, sparse = begin(SRigL(0.1, every="4", ablation=0.9, optimizer_state="mask"))
    budgets = {name: int(mask.sum()) for name, mask in sparse.masks.items()}

    def check() -> None:
        for name, mask in sparse.masks.items():
            fan_in = mask.flatten(1).sum(1)
            assert len(set(fan_in[fan_in > 0].tolist())) == 1
            assert int(mask.sum()) <= budgets[name]

    train(net, opt, after=check)
    dead = {x.name: x.dead_outputs for x in sparse.stats().layers}
    assert dead["4.weight"] > 0
    assert dead["6.weight"] == 0  # the last layer keeps its neurons
    nothing_off_the_mask(net, opt, sparse, state=True)


def test_an_update_drops_the_smallest_weights_and_grows_the_largest_gradients() -> None:
    net = nn.Linear(10, 4, bias=False)
    opt = torch.optim.SGD(net.parameters(), lr=0.0)
    updater = RigL(0.25, every="1", stop=1.0, drop_fraction=0.5, update_replaces_step=False)
    sparse = updater.attach(net, opt, total_steps=10)
    before, size = sparse.masks["weight"].clone(), net.weight.detach().abs().flatten()
    net.weight.grad = torch.arange(40.0).view(4, 10)
    k = updater.exchanged(10, sparse.progress())
    opt.step()
    active = before.flatten().nonzero()[:, 0]
    kept = active[size[active].argsort()[k:]]  # the smallest go
    assert 0 < k < len(active)
    free = [i for i in range(39, -1, -1) if i not in kept.tolist()][:k]
    after = sparse.masks["weight"].flatten().nonzero()[:, 0].tolist()
    assert sorted(after) == sorted([*kept.tolist(), *free])


@pytest.mark.parametrize(
    ("rate", "active", "weights"),
    [  # weights 5 and 6 are dropped and grown again, and keep their values
        (0.5, [0, 2, 3, 5, 6], [0.5, 0, 0.3, 0, 0, -0.05, 0.2, 0]),
        (0.25, [0, 2, 3, 5, 6], [0.5, 0, 0.3, 0, 0, -0.05, 0.2, 0]),
        (0.1, [0, 1, 2, 3, 6], [0.5, -0.1, 0.3, 0, 0, 0, 0.2, 0]),
    ],
)
def test_an_update_of_rest_exchanges_the_weights_of_the_authors_code(
    rate: float, active: list[int], weights: list[float]
) -> None:
    net = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.5, -0.1, 0.3, 0, 0, -0.05, 0.2, 0]]))
    mask = torch.zeros(1, 8, dtype=torch.bool)
    mask[0, [0, 1, 2, 5, 6]] = True
    opt = torch.optim.SGD(net.parameters(), lr=0.0)
    updater = RESTReleased(0.625, every="1", drop_fraction=rate, final_drop_fraction=rate)
    sparse = updater.attach(net, opt, total_steps=10, masks={"weight": mask})
    net.weight.grad = torch.tensor([[0.1, 0.01, 0.2, -0.3, 0.02, 0.25, 0.4, -0.05]])
    opt.step()
    assert sparse.masks["weight"][0].nonzero()[:, 0].tolist() == active
    assert net.weight[0].tolist() == pytest.approx(weights)


def test_an_update_that_replaces_the_step_moves_nothing_else() -> None:
    net, opt, sparse = begin(RigL(0.1, every="1"), "adamw")
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    train(net, opt, range(1))
    assert sparse.updates == 1
    for name, p in net.named_parameters():
        mask = sparse.masks.get(name, torch.ones_like(p).bool())
        assert torch.equal(p, start[name] * mask)


def test_updates_come_between_start_and_stop_only() -> None:
    def updates(**settings: Any) -> list[int]:
        net, opt, sparse = begin(SET(0.1, **settings))
        seen = []
        train(net, opt, after=lambda: seen.append(sparse.updates))
        return [i + 1 for i in range(STEPS) if seen[i] > (seen[i - 1] if i else 0)]

    assert updates(every="8", start=0.25, stop=0.75) == [16, 24]
    assert updates(every="1 epoch", stop=1.0) == [10, 20, 30]
    assert updates(every="50%", stop=1.0) == [20]


def test_density_one_is_plain_training_bit_for_bit() -> None:
    net, opt, _ = begin(REST(1.0, every="4"))
    train(net, opt)
    plain = small_net()
    train(plain, OPTIMIZERS["sgd"](plain.parameters()))
    other = plain.state_dict()
    assert all(torch.equal(value, other[key]) for key, value in net.state_dict().items())


def test_a_drop_fraction_of_zero_is_static() -> None:
    weights = []
    for updater in (
        RigL(0.1, every="4", drop_fraction=0.0, update_replaces_step=False),
        Static(0.1, optimizer_state="reset_new"),
    ):
        net, opt, sparse = begin(updater)
        before = digest(sparse.masks)
        train(net, opt)
        assert digest(sparse.masks) == before
        weights.append(net.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_topology_depends_on_the_seed_alone() -> None:
    def run(seed: int) -> str:
        net, opt, sparse = begin(SET(0.1, every="4"), seed=seed)
        train(net, opt)
        return digest(sparse.masks)

    with torch.random.fork_rng():
        torch.manual_seed(5)
        first = run(0)
    assert first == run(0) != run(1)


def test_statistics_count_kept_explored_and_exchanged_weights() -> None:
    net, opt, sparse = begin(SET(0.1, every="4"))
    union = {name: mask.clone() for name, mask in sparse.masks.items()}
    train(net, opt, after=lambda: [union[n].logical_or_(m) for n, m in sparse.masks.items()])
    stats = sparse.stats()
    assert (stats.kept, stats.updates, stats.step) == (KEPT, 9, STEPS)
    assert stats.explored == pytest.approx(
        sum(int(m.sum()) for m in union.values()) / stats.weights
    )
    assert stats.explored > stats.density
    assert 0 < stats.churn <= 0.3
    for layer in stats.layers:
        mask = sparse.masks[layer.name]
        assert layer.dead_outputs == sum(not bool(row.any()) for row in mask)
        assert layer.dead_inputs == sum(not bool(row.any()) for row in mask.transpose(0, 1))


def test_a_custom_algorithm_is_a_few_lines() -> None:
    @dataclass(frozen=True)
    class Lazy(Updater):
        """Grow the last weights."""

        changes = True

        def grow_scores(self, layer: Layer) -> Tensor:
            return torch.arange(float(layer.mask.numel())).view(layer.mask.shape)

    net, opt, sparse = begin(Lazy(0.1, every="4"))
    train(net, opt)
    assert sum(int(mask.sum()) for mask in sparse.masks.values()) == KEPT
    assert sparse.masks["6.weight"].flatten()[-1]


KINDS: dict[str, Any] = {
    "rigl": lambda d: RigL(d, every="1", stop=1.0, optimizer_state="mask"),
    "rest": lambda d: REST(d, every="1", stop=1.0),
    "set": lambda d: SET(d, every="1", rounding="up"),
    "unexplored": lambda d: ITOP(d, every="1", grow="unexplored"),
    "mest": lambda d: MEST(d, every="1", stop=1.0),
}
VALUES = ("random", "constant", "zero", "tied")


def fill(shape: torch.Size, values: str, seed: int) -> Tensor:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return {
        "random": noise,
        "constant": torch.ones(shape),
        "zero": torch.zeros(shape),
        "tied": noise.round(),
    }[values]


@settings(max_examples=60)
@given(
    kind=st.sampled_from(list(KINDS)),
    shapes=st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=2), min_size=1, max_size=4),
    density=st.floats(0, 1, exclude_min=True),
    weights=st.sampled_from(VALUES),
    gradients=st.sampled_from(VALUES),
)
def test_budgets_are_exact_for_any_shapes_densities_and_ties(
    kind: str, shapes: list[list[int]], density: float, weights: str, gradients: str
) -> None:
    net = nn.ModuleList(nn.Linear(*shape, bias=False) for shape in shapes)
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(fill(p.shape, weights, i))
    total = round(density * sum(p.numel() for p in net.parameters()))
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    if total < len(shapes):
        with pytest.raises(SparsityTooHigh):
            KINDS[kind](density).attach(net, opt, total_steps=8)
        return
    sparse = KINDS[kind](density).attach(net, opt, total_steps=8)
    budgets = {name: int(mask.sum()) for name, mask in sparse.masks.items()}
    assert sum(budgets.values()) == total
    for step in range(8):
        for i, p in enumerate(net.parameters()):
            p.grad = fill(p.shape, gradients, 10 * step + i)
        opt.step()
        assert {name: int(mask.sum()) for name, mask in sparse.masks.items()} == budgets
        nothing_off_the_mask(net, opt, sparse, state=True)


@pytest.mark.parametrize(
    ("updater", "expected"),
    [
        (RigL(0.5, every="4", stop=0.75), [3, 7]),
        (RigLReleased(0.5, every="4", stop=0.75), [0, 4, 8, 12]),
        (REST(0.5, every="4", stop=1.0), [3, 7, 11]),
        (RESTReleased(0.5, every="4"), [3, 7, 11, 15]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_updates_come_in_the_steps_of_the_paper_or_of_the_released_code(
    updater: Updater, expected: list[int]
) -> None:
    net = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    sparse = updater.attach(net, optimizer, total_steps=16)
    assert [step for step in range(16) if sparse.is_due(step)] == expected


def test_only_the_released_rest_exchanges_the_single_weight_of_a_layer() -> None:
    assert REST(0.5).exchanged(1, 0.0) == 0
    assert RESTReleased(0.5).exchanged(1, 0.0) == 1
    assert RESTReleased(0.5).exchanged(9, 0.0) == REST(0.5).exchanged(9, 0.0) == 5
