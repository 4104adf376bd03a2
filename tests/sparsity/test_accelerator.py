"""On an accelerator, updates choose the same weights as on a CPU and wait for the device once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.sparsity import (
    GMP,
    ITOP,
    MEST,
    REST,
    SET,
    SNFS,
    GraNet,
    NonFiniteGradient,
    RigL,
    SparseTraining,
    SRigL,
    Static,
    Updater,
    drop_and_grow,
    maskable,
)
from debiasbench.sparsity.masks import digest, pack
from debiasbench.sparsity.presets import RESTReleased
from debiasbench.sparsity.topology import drop_and_grow_in_rows, top
from tests.sparsity.sparse_net import STEPS, batch, small_net
from tests.sparsity.waiting import Waits, take_accelerator_route

UPDATERS: dict[str, Callable[[], Updater]] = {
    "static": lambda: Static(0.1),
    "set": lambda: SET(0.1, every="4"),
    "rigl": lambda: RigL(0.1, every="4"),
    "itop": lambda: ITOP(0.1, every="4", grow="unexplored"),
    "itop by gradient": lambda: ITOP(0.1, every="4", grow="gradient"),
    "snfs": lambda: SNFS(0.1, every="4"),
    "gmp": lambda: GMP(0.1, every="4"),
    "granet": lambda: GraNet(0.1, every="4"),
    "mest": lambda: MEST(0.1, every="4"),
    "srigl": lambda: SRigL(0.1, every="4", ablation=0.9),
    "rest": lambda: REST(0.1, every="4"),
    "rest at random": lambda: REST(0.1, every="4", grow="random"),
    "rest released": lambda: RESTReleased(0.1, every="4"),
    "2:4": lambda: RigL(0.5, pattern="2:4", every="4", rounding="up"),
    "snip": lambda: REST(0.1, every="4", init="snip"),
}
TWICE = {"snfs", "granet", "srigl"}  # their updates need numbers of the whole network first
EXTREMES = (0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, 1e-45, 3.4e38, -3.4e38)


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> None:
    take_accelerator_route(monkeypatch)


# --- both routes ---------------------------------------------------------------------------------


def on_both_routes(choose: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    gathered = choose()
    with pytest.MonkeyPatch.context() as monkeypatch:
        take_accelerator_route(monkeypatch)
        return gathered, choose()


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, int, int]:
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    size = rows * columns
    score = st.one_of(st.sampled_from(EXTREMES), st.floats(-9, 9, width=32))
    scores = [torch.tensor(draw(st.lists(score, min_size=size, max_size=size))) for _ in range(2)]
    mask = torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    drop = draw(st.integers(0, int(mask.sum())))
    grow = draw(st.integers(0, size - int(mask.sum()) + drop))
    drops, grows = (s.view(rows, columns) for s in scores)
    return mask.view(rows, columns), drops, grows, drop, grow


@given(cases())
def test_both_routes_choose_the_same_of_any_scores(
    case: tuple[Tensor, Tensor, Tensor, int, int],
) -> None:
    mask, drops, grows, drop, grow = case
    active = int(mask.sum())
    for choose in (
        lambda: drop_and_grow(mask, drops, grows, drop, grow),
        lambda: drop_and_grow(mask, drops, grows, drop, grow, active=active),
        lambda: drop_and_grow_in_rows(mask, drops, grows, drop, active=active),
        lambda: top(grows, grow),
    ):
        assert torch.equal(*on_both_routes(choose))


@pytest.mark.parametrize("density", [0.0, 0.001, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64])
def test_both_routes_choose_the_same_of_many_tied_scores(
    density: float, dtype: torch.dtype
) -> None:
    rng = torch.Generator().manual_seed(0)
    for values in (1, 2, 50, 100_000):  # different scores of 12,000 places
        mask = torch.rand(40, 300, generator=rng) < density
        drops, grows = (
            torch.randint(-values, values, mask.shape, generator=rng).to(dtype) for _ in range(2)
        )
        active = int(mask.sum())
        free = mask.numel() - active
        for drop in {0, 1, active // 3, active}:
            for grow in {0, min(drop, free), free + drop}:

                def choose(mask: Tensor = mask, drop: int = drop, grow: int = grow) -> Tensor:
                    return drop_and_grow(mask, drops, grows, drop, grow)  # noqa: B023

                if drop <= active:
                    gathered, compared = on_both_routes(choose)
                    assert torch.equal(gathered, compared)
                    assert int(compared.sum()) == active - drop + grow


def test_both_routes_refuse_more_than_there_is(accelerated: None) -> None:
    mask = torch.tensor([True, True, False, False])
    for active in (2, None):
        with pytest.raises(ValueError, match="cannot drop 3 and grow 3 with 2 of 4 weights active"):
            drop_and_grow(mask, torch.ones(4), torch.ones(4), 3, active=active)


# --- a training whose owner drives it, as `debiasbench run` does ---------------------------------


def begun(updater: Updater, **layout: Any) -> tuple[nn.Module, Any, SparseTraining]:
    net = small_net().to(**layout)
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    sparse = SparseTraining(
        updater, net, opt, total_steps=STEPS, steps_per_epoch=10, seed=0, hooks=False
    )
    return net, opt, sparse


def train(
    net: nn.Module, opt: Any, sparse: SparseTraining, update: Callable[[int], None], steps: int
) -> None:
    for step in range(steps):
        follows = sparse.due(step)
        x, y = batch(step)
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        sparse.constrain_gradients(update_follows=follows)
        if follows and sparse.update_replaces_step:
            opt.zero_grad()
        opt.step()
        if follows:
            update(step)
        else:
            sparse.constrain_weights()


@pytest.mark.parametrize("name", UPDATERS)
def test_a_training_takes_the_same_course_on_both_routes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for route in ("cpu", "accelerator"):
        if route == "accelerator":
            take_accelerator_route(monkeypatch)
        net, opt, sparse = begun(UPDATERS[name]())
        train(net, opt, sparse, sparse.update, STEPS)
        active = {name: int(mask.sum()) for name, mask in sparse.masks.items()}
        sizes = {name: mask.numel() for name, mask in sparse.masks.items()}
        assert sparse.densities() == {name: active[name] / sizes[name] for name in sizes}
        ends.append((net.state_dict(), sparse.state_dict()))
    (weights, state), (other_weights, other_state) = ends
    assert all(torch.equal(value, other_weights[key]) for key, value in weights.items())
    for part in ("masks", "explored"):
        one, two = (dict(s[part]) for s in (state, other_state))  # type: ignore[call-overload]
        assert all(torch.equal(value, two[key]) for key, value in one.items())
        del state[part], other_state[part]
    assert state == other_state


@pytest.mark.parametrize("name", UPDATERS)
def test_an_update_waits_for_the_device_once_or_twice(
    name: str, accelerated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, opt, sparse = begun(UPDATERS[name]())
    waits = Waits(monkeypatch)
    counts: list[list[str]] = []

    def update(step: int) -> None:
        if not sparse.is_due(step):  # the first masks of SNIP, once in a training
            return sparse.update(step)
        waits.seen = []
        with waits:
            sparse.update(step)
        counts.append(waits.seen)
        return None

    train(net, opt, sparse, update, STEPS)
    assert len(counts) == sparse.updates
    assert bool(counts) == sparse.updater.changes
    assert all(seen == ["tolist"] * (1 + (name in TWICE)) for seen in counts)


def test_waiting_is_noticed(accelerated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, x = Waits(monkeypatch), torch.arange(4.0)
    with waits:
        bool(x.any())
        x[x > 1]
        x.nonzero()
        x.numpy()
        x[x > 1] = x[0]
    assert {*waits.seen} == {
        "aten::_local_scalar_dense",
        "aten::index",
        "aten::nonzero",
        "numpy",
        "aten::index_put_",
    }


def with_gradients(name: str) -> tuple[nn.Module, SparseTraining]:
    """Return a network and its sparse training after five steps, with the gradients of the next."""
    net, opt, sparse = begun(UPDATERS[name]())
    train(net, opt, sparse, sparse.update, 5)
    F.cross_entropy(net(batch(9)[0]), batch(9)[1]).backward()
    return net, sparse


@pytest.mark.parametrize("name", UPDATERS)
def test_a_step_without_update_changes_only_tensors_and_does_not_wait(
    name: str, accelerated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, sparse = with_gradients(name)
    waits = Waits(monkeypatch)
    before = python_state(sparse)
    addresses = [p.grad.data_ptr() for p in net.parameters() if p.grad is not None]
    with waits:
        sparse.constrain_gradients(update_follows=False)
        sparse.constrain_weights()
    assert waits.seen == []
    assert python_state(sparse) == before
    assert [p.grad.data_ptr() for p in net.parameters() if p.grad is not None] == addresses
    sparse.check()


@pytest.mark.parametrize("name", UPDATERS)
def test_keeping_gradients_for_an_update_does_not_wait(
    name: str, accelerated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sparse = with_gradients(name)
    with Waits(monkeypatch) as waits:
        sparse.constrain_gradients(update_follows=True)
    assert waits.seen == []


def python_state(sparse: SparseTraining) -> dict[str, object]:
    """Return everything but tensors: numbers, and the identity and the content of containers."""
    return {
        key: (id(value), repr(value) if isinstance(value, int | float) else sorted_content(value))
        for key, value in vars(sparse).items()
    }


def sorted_content(value: object) -> object:
    if isinstance(value, dict):
        return {k: v if isinstance(v, int | float) else id(v) for k, v in value.items()}
    return {k: id(v) for k, v in vars(value).items()} if hasattr(value, "__dict__") else id(value)


@pytest.mark.parametrize("route", ["cpu", "accelerator"])
@pytest.mark.parametrize("name", UPDATERS)
def test_updates_leave_every_tensor_where_it_is(
    name: str, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if route == "accelerator":
        take_accelerator_route(monkeypatch)
    net, opt, sparse = begun(UPDATERS[name]())

    def addresses() -> list[int]:
        weights = maskable(net).items()
        momenta = [opt.state[p]["momentum_buffer"] for _, p in weights]
        factors = vars(sparse._factors)["_factors"]
        tensors = [*sparse.masks.values(), *sparse.explored.values(), *momenta, *factors]
        return [t.data_ptr() for t in (*tensors, *(p for _, p in weights))]

    seen: list[list[int]] = []

    def update(step: int) -> None:
        if opt.state:
            seen.append(addresses())
        sparse.update(step)

    train(net, opt, sparse, update, 50)
    assert sparse.updates >= 7 * sparse.updater.changes
    assert all(now == addresses() for now in seen)


@pytest.mark.parametrize("name", ["rigl", "snfs", "srigl", "granet", "mest", "itop by gradient"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_gradient_that_is_not_finite_leaves_an_update_undone(
    name: str, bad: float, accelerated: None
) -> None:
    net, opt, sparse = begun(UPDATERS[name]())
    train(net, opt, sparse, sparse.update, 6)
    assert sparse.due(7)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    assert isinstance(net[4].weight.grad, Tensor)  # type: ignore[index]
    net[4].weight.grad[3, 5] = bad  # type: ignore[index]
    sparse.constrain_gradients(update_follows=True)
    before = digest(sparse.masks), sparse.updates, sparse.ledger.steps, dict(sparse.grown)
    weights = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(NonFiniteGradient, match=r"gradient of 4.weight is not finite at step 7"):
        sparse.update(7)
    assert (digest(sparse.masks), sparse.updates, sparse.ledger.steps, sparse.grown) == before
    assert all(torch.equal(p, w) for p, w in zip(net.parameters(), weights, strict=True))


@pytest.mark.usefixtures("accelerated")
def test_masks_lie_in_memory_like_weights_and_are_multiplied_in_one_kernel() -> None:
    net, opt, sparse = begun(REST(0.1, every="4"), memory_format=torch.channels_last)
    train(net, opt, sparse, sparse.update, 9)
    factors = vars(sparse._factors)["_factors"]
    for (name, p), factor in zip(maskable(net).items(), factors, strict=True):
        mask = sparse.masks[name]
        assert p.stride() == mask.stride() == factor.stride()  # what the kernel asks for
        assert p.dtype == factor.dtype
        assert torch.equal(factor.bool(), mask)
        assert torch.equal(pack(mask), pack(mask.contiguous()))
