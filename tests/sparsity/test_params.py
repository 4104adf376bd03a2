"""Maskable weights are chosen by type of layer and by patterns of names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from debiasbench.sparsity import (
    SparsityError,
    Static,
    maskable,
)
from debiasbench.sparsity.params import select


def small_net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 36, 5),
        )


def test_patterns_choose_weights_and_a_misspelt_one_is_named() -> None:
    net = small_net()
    assert list(select(net, include=["4.*"])) == ["4.weight"]
    assert list(select(net, exclude=["4.*"])) == ["0.weight"]
    with pytest.raises(SparsityError, match=r"No layer matches 'fc\*'. Available: 0.weight"):
        select(net, exclude=["fc*"])
    with pytest.raises(SparsityError, match="select none of the 2 layers"):
        select(net, exclude=["*"])
    with pytest.raises(SparsityError, match="no convolution or linear layer"):
        select(nn.BatchNorm1d(3))


def test_maskable_weights_are_chosen_by_module_and_shared_ones_counted_once() -> None:
    net = nn.ModuleDict(
        {
            "a": nn.Conv1d(2, 3, 2),
            "norm": nn.LayerNorm(3),
            "emb": nn.Embedding(4, 3),
            "b": nn.Linear(3, 3),
            "c": nn.Linear(3, 3),
            "up": nn.ConvTranspose2d(2, 3, 2),
        }
    )
    net["c"].weight = net["b"].weight  # type: ignore[assignment]
    assert list(maskable(net)) == ["a.weight", "b.weight", "up.weight"]
    assert maskable(nn.BatchNorm1d(3)) == {}
    attention = nn.MultiheadAttention(8, 2)
    assert list(maskable(attention)) == ["in_proj_weight", "out_proj.weight"]


class TiedLanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(50, 16), nn.LSTM(16, 16)
        self.out = nn.Linear(16, 50, bias=False)
        self.out.weight = self.embed.weight


def test_the_report_names_shared_weights_and_those_that_stay_dense() -> None:
    net = TiedLanguageModel()
    sparse = Static(0.1).attach(net, torch.optim.SGD(net.parameters(), 0.1), total_steps=1)
    stats = sparse.stats()
    assert [(x.name, x.tied) for x in stats.layers] == [("out.weight", ("embed.weight",))]
    assert stats.dense == ("rnn.weight_ih_l0", "rnn.weight_hh_l0")
    assert str(stats).splitlines() == [
        "0.1000  out.weight, shared as embed.weight",
        "0.1000  of all: 80 of 800 weights",
        "dense, not counted: rnn.weight_ih_l0, rnn.weight_hh_l0",
    ]


def test_the_report_names_frozen_and_excluded_weights() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    net[0].requires_grad_(False)
    sparse = Static(0.5, exclude=("2.*",)).attach(
        net, torch.optim.SGD(net.parameters(), 0.1), total_steps=1
    )
    assert sparse.stats().dense == ("0.weight", "2.weight")
    assert list(sparse.masks) == ["1.weight"]
