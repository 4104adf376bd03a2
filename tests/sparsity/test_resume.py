"""Going on from a saved state, in another process, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from debiasbench.sparsity import (
    ITOP,
    REST,
    SET,
    SNFS,
    GraNet,
    RigL,
    SparseTraining,
    SparsityError,
    Updater,
)
from debiasbench.sparsity.masks import digest
from tests import warm
from tests.sparsity.sparse_net import begin, train

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


@pytest.mark.slow
def test_training_in_two_processes_is_training_in_one_bit_for_bit(tmp_path: Path) -> None:
    for name, updater in RESUMABLE.items():
        net, opt, sparse = begin(updater)
        train(net, opt, range(18))
        torch.save(whole_state(net, opt, sparse), tmp_path / name)
    code = (
        "import sys; from pathlib import Path; from tests.sparsity.test_resume import *\n"
        "for name in RESUMABLE: continue_from(Path(sys.argv[1]) / name, name)"
    )
    done = warm.run(code, tmp_path)
    assert done.returncode == 0, done.stderr
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
    with pytest.raises(SparsityError, match=r"0.weight is \(8, 4, 3, 3\) in the masks and no such"):
        RigL(0.5, every="4").attach(other, opt, total_steps=4).load_state_dict(state)
    for change in ({"version": 7}, {"updater": {"name": "SET"}}):
        with pytest.raises(SparsityError, match=r"version 7|made by"):
            sparse.load_state_dict(state | change)
    assert digest(sparse.masks) == before
