"""Networks that keep tensors outside parameters: compaction leaves nothing of its own in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from debiasbench.sparsity import (
    CannotCompact,
    SparsityError,
    compact,
    connectivity,
    maskable,
    to_csr,
)


class Caching(nn.Module):
    """Keeps what it computes in evaluation mode, in one of several places."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 4)
        self.table, self.place = nn.Parameter(torch.randn(4, 4)), place
        self.kept: Any = {"dict": {}, "nested": {"a": []}, "list": [], "object": Box()}.get(place)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.two(self.one(x).relu())
        return y @ (self.table * 2 if self.training else self.cached())

    def cached(self) -> Any:
        if self.place == "buffer":
            if "table2" not in self._buffers:
                self.register_buffer("table2", self.table * 2, persistent=False)
            return self._buffers["table2"]
        if self.place == "attribute":
            if self.kept is None:
                self.kept = self.table * 2
            return self.kept
        if self.place == "object":
            if self.kept.value is None:
                self.kept.value = self.table * 2
            return self.kept.value
        if self.place == "dict":
            return self.kept.setdefault("b", self.table * 2)
        kept = self.kept["a"] if self.place == "nested" else self.kept
        if not kept:
            kept.append(self.table * 2)
        return kept[0]


class Box:
    """Something that compaction does not look into."""

    value: Tensor | None = None


PLACES = ["attribute", "dict", "nested", "list", "buffer"]


def sparse_net(place: str) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    net = Caching(place).eval()
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in maskable(net).items()}
    masks["one.weight"][:4] = False
    with torch.no_grad():
        net.one.weight.mul_(masks["one.weight"])
    return net, masks


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("filled", [False, True])
def test_a_network_that_caches_tensors_runs_when_it_is_small(place: str, filled: bool) -> None:
    net, masks = sparse_net(place)
    x = torch.randn(3, 8)
    if filled:
        net(x)  # with a graph: such a tensor cannot be copied as it is
    small = compact(net, masks, x)
    assert small.parameters < small.original_parameters
    for mode in (False, True):
        actual, expected = small.model.train(mode)(x), net.train(mode)(x)
        assert actual.dtype == torch.float32
        assert torch.allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_a_cache_that_was_empty_is_empty_and_follows_the_weights(place: str) -> None:
    net, masks = sparse_net(place)
    small = compact(net, masks, torch.randn(3, 8)).model
    with torch.no_grad():
        small.table.zero_()
    assert not small(torch.randn(3, 8)).any()


def test_a_cache_that_is_not_found_is_refused() -> None:
    net, masks = sparse_net("object")
    with pytest.raises(CannotCompact, match="does not run in its own type without its dead"):
        compact(net, masks, torch.randn(3, 8))


def test_a_network_that_does_not_run_in_its_own_type_either_is_compacted() -> None:
    class OnlyDouble(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if self.like.dtype != torch.float64:
                raise RuntimeError("no such operation in this type")
            y: Tensor = super().forward(x)
            return y

    net = OnlyDouble(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    net.like = torch.zeros(1)  # no parameter, but it follows their type
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in maskable(net).items()}
    masks["0.weight"][:4] = False
    net[0].weight.data.mul_(masks["0.weight"])
    assert compact(net, masks, torch.randn(3, 8)).kept["0.weight"] != tuple(range(16))


def test_a_small_network_keeps_what_is_frozen_and_every_mode() -> None:
    net, masks = sparse_net("dict")
    net.one.requires_grad_(False)
    net.train().two.eval()
    small = compact(net, masks, torch.randn(3, 8)).model
    flags = {name: p.requires_grad for name, p in net.named_parameters()}
    assert {name: p.requires_grad for name, p in small.named_parameters()} == flags
    assert [m.training for m in small.modules()] == [m.training for m in net.modules()]


@pytest.mark.parametrize("place", PLACES)
def test_connectivity_and_csr_work_with_caches(place: str) -> None:
    net, masks = sparse_net(place)
    x = torch.randn(3, 8)
    net(x)
    assert connectivity(net, masks, x).kept == sum(int(m.sum()) for m in masks.values())
    assert torch.allclose(to_csr(net, masks, x, repeats=1).model(x), net(x), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize(
    ("compute", "remove"),
    [
        (nn.utils.weight_norm, "remove_weight_norm"),
        (nn.utils.spectral_norm, "remove_spectral_norm"),
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), r"prune\.remove"),
    ],
)
@pytest.mark.parametrize(
    ("use", "error"),
    [(compact, CannotCompact), (connectivity, SparsityError), (to_csr, SparsityError)],
)
def test_a_layer_whose_weight_a_hook_computes_is_named(
    compute: Any, remove: str, use: Any, error: type[Exception]
) -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), compute(nn.Linear(16, 16)))
    net(torch.randn(2, 8))
    with pytest.raises(error, match=rf"^2\.weight is computed by a hook.*{remove}\(layer, 'wei"):
        use(net, {}, torch.randn(2, 8))
