"""Connectivity counts the weights on a path from an input to an output."""

from __future__ import annotations

import torch
from torch import nn

from debiasbench.sparsity import (
    connectivity,
)


def test_connectivity_counts_the_weights_on_a_path_to_an_output() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    masks = {
        "0.weight": torch.tensor([[1, 0], [1, 1], [0, 0]]).bool(),
        "2.weight": torch.tensor([[0, 1, 1], [0, 0, 0]]).bool(),
    }  # hidden 0 is read by nobody, hidden 2 has no input
    paths = connectivity(net, masks, torch.zeros(1, 2))
    assert (paths.kept, paths.useful) == (5, 3)
    assert (paths.outputs, paths.of_outputs) == (1, 2)
