"""Units between two linear layers are removed exactly, and only where nothing else reads them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.sparsity import CannotCompact, compact


class Block(nn.Module):
    """Embeddings of ids that may be cut, a feed-forward block with a shortcut, and a head."""

    def __init__(self, kind: str = "gelu", bias: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.wide = nn.Linear(8, 16)
        self.narrow = nn.Linear(16, 8, bias=bias)
        self.head = nn.Linear(8, 3)
        self.kind = kind

    def forward(self, x: dict[str, Tensor]) -> Tensor:  # noqa: PLR0912
        if int(x["length"].max()) < 1:  # what torch.fx cannot follow
            raise ValueError("empty")
        h = self.embed(x["ids"])
        wide = self.wide(h)
        more: Any = 0
        if self.kind == "new gelu":
            inner = 0.8 * (wide + 0.04 * torch.pow(wide, 3.0))
            active = 0.5 * wide * (1.0 + torch.tanh(inner))
        elif self.kind == "dropout":
            active = F.dropout(wide.relu(), 0.5, self.training)
        elif self.kind == "in place":
            active = wide.mul_(2)
        elif self.kind == "relu in place":
            active = F.relu(wide, inplace=True)
        elif self.kind == "softmax":
            active = wide.softmax(-1)
        elif self.kind == "gate":
            active = wide * h.mean(-1, keepdim=True).expand_as(wide)
        elif self.kind == "linear":
            active = wide
        else:
            active = F.gelu(wide)
        if self.kind == "read":
            more = wide.sum(-1, keepdim=True)
        elif self.kind == "item":
            more = float(active.max().item())
        elif self.kind == "list":
            more = wide.tolist()[0][0][0]
        narrow = self.narrow(active)
        if self.kind == "twice":
            narrow = narrow + self.narrow(active)
        elif self.kind == "again":
            narrow = narrow + self.narrow(F.gelu(self.wide(narrow)))
        return self.head((h + narrow + more).mean(1))


def sparse(kind: str, **more: Any) -> tuple[Block, dict[str, Tensor]]:
    """Units 0 to 3 have no inputs, units 2 to 7 no readers."""
    torch.manual_seed(0)
    model = Block(kind, **more).eval()
    masks = {
        "wide.weight": torch.ones(16, 8, dtype=torch.bool),
        "narrow.weight": torch.ones(8, 16, dtype=torch.bool),
    }
    masks["wide.weight"][:4] = False
    masks["narrow.weight"][:, 2:8] = False
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    return model, masks


INPUTS = {
    "ids": torch.randint(20, (5, 7), generator=torch.Generator().manual_seed(0)),
    "length": torch.full((5,), 7),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["gelu", "new gelu", "dropout", "linear"])
def test_units_that_are_constant_or_not_read_are_removed_exactly(kind: str, bias: bool) -> None:
    model, masks = sparse(kind, bias=bias)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = compact(model, masks, INPUTS)
    assert small.kept == {"wide.weight": tuple(range(8, 16))}
    assert small.model.wide.weight.shape == (8, 8)
    assert small.model.narrow.weight.shape == (8, 8)
    assert {n: tuple(m.shape) for n, m in small.masks.items()} == {
        "wide.weight": (8, 8),
        "narrow.weight": (8, 8),
        "head.weight": (3, 8),
    }
    assert torch.allclose(small.model(INPUTS), model(INPUTS), atol=1e-6)
    assert small.parameters == sum(p.numel() for p in small.model.parameters())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    again = compact(small.model, small.masks, INPUTS)
    assert again.parameters == small.parameters


@pytest.mark.parametrize(
    "kind",
    ["read", "item", "list", "twice", "again", "softmax", "gate", "in place", "relu in place"],
)
def test_units_stay_where_anything_else_reads_them(kind: str) -> None:
    model, masks = sparse(kind)
    small = compact(model, masks, INPUTS)
    assert small.kept == {}
    assert small.parameters == small.original_parameters
    assert torch.allclose(small.model(INPUTS), model(INPUTS), atol=1e-6)


@pytest.mark.parametrize("tie", ["wide", "narrow"])
def test_units_of_layers_whose_weights_are_shared_stay(tie: str) -> None:
    model, masks = sparse("gelu")
    model.other = nn.Linear(1, 1)
    model.other.weight = model.get_parameter(f"{tie}.weight")
    assert compact(model, masks, INPUTS).kept == {}


def test_a_block_of_dead_units_keeps_one() -> None:
    model, masks = sparse("gelu")
    masks["wide.weight"][:] = False
    with torch.no_grad():
        model.wide.weight.zero_()
    small = compact(model, masks, INPUTS)
    assert small.kept == {"wide.weight": (0,)}
    assert torch.allclose(small.model(INPUTS), model(INPUTS), atol=1e-6)


def test_a_network_that_does_not_run_is_an_error() -> None:
    model, masks = sparse("gelu")
    with pytest.raises(CannotCompact, match="does not run"):
        compact(model, masks, {"ids": INPUTS["ids"], "length": torch.zeros(5)})
