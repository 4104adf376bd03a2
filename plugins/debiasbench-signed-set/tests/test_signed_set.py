"""SignedSET passes the checks of updaters, and drops weights as its paper says."""

from __future__ import annotations

import torch
from debiasbench_signed_set.updater import SignedSET
from torch import nn

from debiasbench.testing import check_updater


def test_it_passes_the_checks_of_updaters() -> None:
    check_updater(SignedSET(density=0.2, every="4"))


def test_it_drops_the_same_fraction_of_each_sign() -> None:
    net = nn.Linear(20, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[*range(1, 11), *(-100 * i for i in range(1, 11))]]))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    keep = torch.ones(1, 20, dtype=torch.bool)
    keep[0, [9, 19]] = False  # nine weights of each sign are active
    updater = SignedSET(drop_fraction=1 / 3, every="1")
    sparse = updater.attach(net, optimizer, total_steps=10, masks={"weight": keep})
    net.weight.grad = torch.zeros(1, 20)
    before = net.weight.detach().clone()
    optimizer.step()
    lost = (before != 0) & (net.weight == 0)
    assert set(lost[0].nonzero()[:, 0].tolist()) <= {0, 1, 2, 10, 11, 12}
    assert int(sparse.masks["weight"].sum()) == 18
