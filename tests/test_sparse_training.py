"""Sparse training: budgets after every step, any optimizer, any precision, and exact resumption."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from debiasbench.sparsity import (
    GMP,
    ITOP,
    MEST,
    REST,
    SET,
    SNFS,
    GraNet,
    Layer,
    NonFiniteGradient,
    NotAttached,
    RigL,
    SparseTraining,
    SparsityError,
    SparsityTooHigh,
    SRigL,
    Static,
    Updater,
    count_flops,
    maskable,
)
from debiasbench.sparsity.masks import digest

STEPS = 40


def small_net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
            nn.Linear(8 * 36, 20), nn.ReLU(), nn.Linear(20, 5),
        )  # fmt: skip


def batch(step: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(step)
    return torch.rand(16, 4, 6, 6, generator=rng), torch.randint(5, (16,), generator=rng)


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1),
    "sgd foreach": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, foreach=True),
    "sgd fused": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
}


def train(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: range = range(STEPS),
    after: Any = lambda: None,
) -> None:
    for step in steps:
        x, y = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        after()


def begin(
    updater: Updater, optimizer: str = "sgd", seed: int = 0, **more: Any
) -> tuple[nn.Module, torch.optim.Optimizer, SparseTraining]:
    net = small_net()
    opt: torch.optim.Optimizer = OPTIMIZERS[optimizer](net.parameters())
    sparse = updater.attach(net, opt, total_steps=STEPS, steps_per_epoch=10, seed=seed, **more)
    return net, opt, sparse


def nothing_off_the_mask(
    net: nn.Module, opt: torch.optim.Optimizer, sparse: SparseTraining, state: bool
) -> None:
    for name, p in maskable(net).items():
        off = ~sparse.masks[name]
        values = [p.detach()]
        if state:
            values += [p.grad] if p.grad is not None else []
            values += [s for s in opt.state[p].values() if s.shape == p.shape]
        for value in values:
            assert not value[off].any()


KEPT = round(0.1 * (8 * 36 + 20 * 288 + 100))


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize(
    "updater",
    [RigL(0.1, every="4", optimizer_state="mask"), REST(0.1, every="4"), SET(0.1, every="4"),
     ITOP(0.1, every="4", grow="unexplored"), MEST(0.1, every="4"), Static(0.1)],
    ids=lambda u: type(u).__name__,
)  # fmt: skip
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
    with pytest.raises(SparsityError, match="shares weights over all layers"):
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


# --- loops that people have ------------------------------------------------------------------


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
    with pytest.raises(NotAttached, match=r"0.weight has weights off its mask"):
        sparse.state_dict()


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


# --- first masks -----------------------------------------------------------------------------


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
    with pytest.raises(SparsityError, match=r"do not fit the model's layers, first at 0.weight"):
        begin(Static(0.5), masks={"a": torch.ones(3)})
    densities = {"0.weight": 1.0, "4.weight": 0.1, "6.weight": 0.5}
    sparse = begin(Static(0.5), densities=densities)[2]
    assert sparse.densities() == pytest.approx(densities)


def test_excluded_layers_are_not_counted_and_dense_ones_are() -> None:
    sparse = begin(SET(0.1, every="4", exclude=("0.*",)))[2]
    assert set(sparse.masks) == {"4.weight", "6.weight"}
    assert sparse.density == pytest.approx(0.1, abs=1e-3)
    for updater in (SET, GMP, GraNet, SNFS):
        net, opt, sparse = begin(updater(0.1, every="4", keep_dense=("0.*",)))
        train(net, opt)
        assert sparse.masks["0.weight"].all()
        assert sum(int(mask.sum()) for mask in sparse.masks.values()) == KEPT


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"density": 0.0}, "density is 0.0, must be > 0 and <= 1"),
        ({"density": 1.5}, "density is 1.5"),
        ({"density": float("nan")}, "density is nan"),
        ({"drop_fraction": -0.1}, "drop_fraction is -0.1, must be >= 0 and <= 1"),
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
    [(Static(0.1, distribution="erq"), SparsityError), (Static(0.0001), SparsityTooHigh),
     (Static(0.1, exclude=("x",)), SparsityError), (RigL(every="2 epochs"), SparsityError)],
)  # fmt: skip
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
        SparsityError, match=r"Careless.update gave no bool mask of shape \(8, 4, 3"
    ):
        train(net, opt)


# --- going on --------------------------------------------------------------------------------

RESUMABLE: dict[str, Updater] = {
    "rigl": RigL(0.1, every="4"),
    "set": SET(0.1, every="4"),
    "unexplored": ITOP(0.1, every="4", grow="unexplored"),
    "snfs": SNFS(0.1, every="4"),
    "granet": GraNet(0.1, every="4"),
    "snip": REST(0.1, every="4", init="snip"),
    "released": REST(0.1, every="4", stop=1.0, optimizer_state="dense"),
}


def whole_state(net: nn.Module, opt: Any, sparse: SparseTraining) -> dict[str, Any]:
    return {"net": net.state_dict(), "opt": opt.state_dict(), "sparse": sparse.state_dict()}


def continue_from(path: Path, name: str) -> None:
    """Load into fresh objects, train the second half, save."""
    net, opt, sparse = begin(RESUMABLE[name], seed=9)  # the state brings the right seed
    state = torch.load(path, weights_only=True)
    net.load_state_dict(state["net"])
    opt.load_state_dict(state["opt"])
    sparse.load_state_dict(state["sparse"])
    train(net, opt, range(18, 36))
    torch.save(whole_state(net, opt, sparse), path)


def test_training_in_two_processes_is_training_in_one_bit_for_bit(tmp_path: Path) -> None:
    for name, updater in RESUMABLE.items():
        net, opt, sparse = begin(updater)
        train(net, opt, range(18))
        torch.save(whole_state(net, opt, sparse), tmp_path / name)
    code = (
        "import sys; from pathlib import Path; from tests.test_sparse_training import *\n"
        f"for name in RESUMABLE: continue_from(Path({str(tmp_path)!r}) / name, name)"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
    for name, updater in RESUMABLE.items():
        net, opt, sparse = begin(updater)
        train(net, opt, range(36))
        once, twice = whole_state(net, opt, sparse), torch.load(tmp_path / name, weights_only=True)
        assert_equal(once, twice, name)


def assert_equal(one: Any, two: Any, where: str) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, two), where
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            assert_equal(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list):
        for i, pair in enumerate(zip(one, two, strict=True)):
            assert_equal(*pair, f"{where}.{i}")
    else:
        assert one == two, where


def test_a_state_of_another_network_or_updater_is_refused_and_nothing_changes() -> None:
    sparse = begin(RigL(0.1, every="4"))[2]
    state, before = sparse.state_dict(), digest(sparse.masks)
    other = nn.Linear(3, 2)
    opt = torch.optim.SGD(other.parameters())
    with pytest.raises(SparsityError, match=r"0.weight is \(8, 4, 3, 3\) there, no such weight"):
        RigL(0.5, every="4").attach(other, opt, total_steps=4).load_state_dict(state)
    for change in ({"version": 7}, {"updater": {"name": "SET"}}):
        with pytest.raises(SparsityError, match=r"version 7|made by"):
            sparse.load_state_dict(state | change)
    assert digest(sparse.masks) == before


# --- what it counts --------------------------------------------------------------------------


def test_statistics_say_what_was_kept_explored_and_exchanged() -> None:
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
    [(RigL(0.1, every="4", distribution="uniform"), 7), (SET(0.1, distribution="uniform"), 0),
     (REST(0.1, every="4", optimizer_state="dense", distribution="uniform"), STEPS)],
)  # fmt: skip
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


def test_flops_are_summed_over_the_masks_that_really_were() -> None:
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


def test_an_algorithm_of_ones_own_is_a_few_lines() -> None:
    @dataclass(frozen=True)
    class Lazy(Updater):
        """Grow what comes last."""

        changes = True

        def grow_scores(self, layer: Layer) -> Tensor:
            return torch.arange(float(layer.mask.numel())).view(layer.mask.shape)

    net, opt, sparse = begin(Lazy(0.1, every="4"))
    train(net, opt)
    assert sum(int(mask.sum()) for mask in sparse.masks.values()) == KEPT
    assert sparse.masks["6.weight"].flatten()[-1]
