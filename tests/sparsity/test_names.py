"""Wrappers of a network change nothing: masks, patterns, states, FLOPs and compaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from debiasbench.sparsity import (
    RigL,
    SparseTraining,
    SparsityError,
    compact,
    connectivity,
    count_flops,
    maskable,
    pack_state,
    to_csr,
    unpack_state,
)

WRAP: dict[str, Callable[[Any], Any]] = {
    "torch.compile": lambda net: torch.compile(net, backend="eager"),
    "DataParallel": nn.DataParallel,
    "both": lambda net: nn.DataParallel(torch.compile(net, backend="eager")),
    "AveragedModel": AveragedModel,
    "a part compiled": lambda net: nn.Sequential(torch.compile(net[0], backend="eager"), *net[1:]),
}


def build() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def attach(net: nn.Module, **settings: Any) -> SparseTraining:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    return RigL(0.1, every="1", **settings).attach(net, optimizer, total_steps=9, seed=3)


@pytest.fixture(params=WRAP)
def wrapped(request: pytest.FixtureRequest) -> nn.Module:
    return WRAP[request.param](build())


def test_masks_and_patterns_do_not_depend_on_wrappers(wrapped: nn.Module) -> None:
    plain, sparse = attach(build()), attach(wrapped)
    assert list(sparse.masks) == list(plain.masks) == ["0.weight", "2.weight"]
    assert all(torch.equal(sparse.masks[name], mask) for name, mask in plain.masks.items())
    assert sparse.stats().dense == ()


def test_layers_of_a_wrapped_network_are_chosen_by_their_own_names(wrapped: nn.Module) -> None:
    assert list(attach(wrapped, exclude=("2.*",)).masks) == ["0.weight"]


def test_a_state_is_loaded_with_and_without_wrappers(wrapped: nn.Module) -> None:
    plain, sparse = attach(build()), attach(wrapped)
    plain.load_state_dict(sparse.state_dict())
    sparse.load_state_dict(plain.state_dict())


def test_a_wrapped_network_is_counted_analysed_and_made_smaller(wrapped: nn.Module) -> None:
    masks = attach(wrapped).masks
    x = torch.randn(4, 16)
    expected: Tensor = wrapped(x)
    small = compact(wrapped, masks, x)
    assert torch.allclose(small.model(x), expected, atol=1e-6)
    assert list(maskable(small.model)) == ["0.weight", "2.weight"]
    assert connectivity(wrapped, masks, x).kept == sum(int(m.sum()) for m in masks.values())
    assert torch.allclose(to_csr(wrapped, masks, x, repeats=1).model(x), expected, atol=1e-6)


@pytest.mark.parametrize("wrap", ["DataParallel", "AveragedModel"])
def test_flops_are_counted_by_the_names_without_wrappers(wrap: str) -> None:
    net = WRAP[wrap](build())
    with count_flops(net) as flops:
        net(torch.randn(4, 16))
    assert flops.by_parameter == {"0.weight": 2 * 4 * 16 * 32, "2.weight": 2 * 4 * 32 * 4}


def test_the_state_of_a_wrapped_network_is_packed_with_its_masks() -> None:
    net = nn.DataParallel(build())
    packed = pack_state(net.state_dict(), attach(net).masks)
    state, masks = unpack_state(packed)
    assert state.keys() == net.state_dict().keys()
    assert masks.keys() == {"module.0.weight", "module.2.weight"}


def test_a_module_that_a_network_calls_module_is_part_of_its_names() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    assert list(maskable(Net())) == ["module.weight", "head.weight"]
    with pytest.raises(SparsityError, match=r"No layer matches '_orig_mod\.\*'"):
        attach(Net(), include=("_orig_mod.*",))
