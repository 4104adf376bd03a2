"""A network is converted to CSR where that is faster, and computes the same."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from debiasbench.sparsity.csr import to_csr
from debiasbench.sparsity.csr_layers import CsrLinear
from debiasbench.sparsity.errors import SparsityError
from tests.sparsity.csr_nets import always, built, conv_net, convert, masked, mlp
from tests.sparsity.random_tensors import Tensors, assert_same_bits, bernoulli, random


def never(dense_ms: float, csr_ms: float) -> bool:
    return False


NETS = [(mlp, (27,), 3), (conv_net, (3, 9, 11), 6)]  # input, candidates


@pytest.mark.parametrize(("build", "shape", "candidates"), NETS)
@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.2, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_a_network_in_csr_computes_what_the_dense_one_does(
    build: Callable[[], nn.Module],
    shape: tuple[int, ...],
    candidates: int,
    batch: int,
    density: float,
    dtype: torch.dtype,
) -> None:
    model = built(build, dtype)
    masks = masked(model, density)
    example = random(batch, *shape, dtype=dtype)
    report = to_csr(model, masks, example, repeats=1, choose=always)
    assert [x.chosen for x in report.layers] == [True] * candidates
    assert not any(isinstance(x, nn.Linear | nn.Conv2d) for x in report.model.modules())
    model.eval()
    for x in (example, random(3, *shape, seed=1, dtype=dtype), example[:0]):
        output, expected = report.model(x), model(x)
        assert output.shape == expected.shape
        assert output.dtype == dtype
        tolerance = 1e-10 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(output, expected, atol=tolerance, rtol=0)


def test_the_original_is_untouched() -> None:
    model = built(conv_net).train()
    masks = masked(model, 0.1)
    before = copy.deepcopy(model.state_dict())
    modules = [(name, id(x), x.training) for name, x in model.named_modules()]
    report = to_csr(model, masks, random(2, 3, 9, 11, dtype=torch.float64), choose=always)
    assert_same_bits(model.state_dict(), before)
    assert [(name, id(x), x.training) for name, x in model.named_modules()] == modules
    assert all(p.requires_grad for p in model.parameters())
    assert not any(x.training for x in report.model.modules())
    assert not any(p.requires_grad for p in report.model.parameters())
    assert not {id(p) for p in model.parameters()} & {id(p) for p in report.model.parameters()}


@torch.no_grad()
def test_a_dense_layer_stays_dense_if_that_is_chosen() -> None:
    model = built(mlp).eval()
    x = random(7, 27, dtype=torch.float64)
    report = to_csr(model, {}, x, choose=never)
    assert [(c.name, c.density, c.chosen) for c in report.layers] == [
        ("0.weight", 1.0, False),
        ("2.weight", 1.0, False),
        ("4.weight", 1.0, False),
    ]
    assert torch.equal(report.model(x), model(x))
    assert list(report.model.state_dict()) == list(model.state_dict())


@torch.no_grad()
def test_every_layer_is_chosen_separately_by_its_times() -> None:
    model = built(mlp)
    masks = masked(model, 0.1)
    del masks["2.weight"]
    times: list[tuple[float, float]] = []

    def only_the_second(dense_ms: float, csr_ms: float) -> bool:
        times.append((dense_ms, csr_ms))
        return len(times) == 2

    x = random(7, 27, dtype=torch.float64)
    report = to_csr(model, masks, x, choose=only_the_second)
    assert [c.chosen for c in report.layers] == [False, True, False]
    assert [(c.dense_ms, c.csr_ms) for c in report.layers] == times
    assert all(ms > 0 for pair in times for ms in pair)
    densities = [int(m.sum()) / m.numel() for m in (masks["0.weight"], masks["4.weight"])]
    assert [report.layers[0].density, report.layers[2].density] == densities
    assert [type(x) for x in report.model][::2] == [nn.Linear, CsrLinear, nn.Linear]


def test_by_default_the_faster_layer_is_used() -> None:
    model = built(mlp)
    report = to_csr(model, masked(model, 0.1), random(7, 27, dtype=torch.float64))
    for choice in report.layers:
        assert choice.chosen == (choice.csr_ms < choice.dense_ms)


class Odd(nn.Module):
    """Layers that are shared, tied, hooked, patched, parametrised or not called."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(6, 6)
        self.again = self.shared
        self.tied = nn.Linear(6, 6)
        self.tied.weight = self.shared.weight
        self.hooked = nn.Linear(6, 6)
        self.hooked.register_forward_hook(lambda module, args, output: output + 1)
        self.patched = nn.Linear(6, 6)
        self.patched.forward = lambda x: x * 2
        self.pruned = prune.random_unstructured(nn.Linear(6, 6), "weight", 0.5)
        self.normed = parametrizations.weight_norm(nn.Linear(6, 6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(6, 2, 6, batch_first=True)  # reads weights
        self.uncalled = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 6) -> (B, T, 6)."""
        x = self.tied(input=self.again(torch.tanh(self.shared(x))))
        x = self.normed(self.pruned(self.patched(self.hooked(x))))
        return self.encoder(self.attention(x, x, x)[0])


@torch.no_grad()
def test_only_plain_layers_are_replaced() -> None:
    model = built(Odd).eval()
    x = random(2, 3, 6, dtype=torch.float64)
    masks = {"shared.weight": bernoulli(0.3, 6, 6)}
    model.shared.weight.mul_(masks["shared.weight"])
    report = to_csr(model, masks, x, repeats=1, choose=always)
    assert [c.name for c in report.layers] == ["shared.weight", "tied.weight"]
    assert report.layers[0].density == report.layers[1].density < 1
    assert report.model.again is report.model.shared
    torch.testing.assert_close(report.model(x), model(x), atol=1e-10, rtol=0)


@torch.no_grad()
def test_grouped_and_otherwise_padded_convolutions_stay_dense() -> None:
    model = built(
        lambda: nn.Sequential(
            nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        )
    )
    x = random(2, 4, 6, 6, dtype=torch.float64)
    report = to_csr(model, masked(model, 0.3), x, choose=always)
    assert report.layers == ()
    assert torch.equal(report.model(x), model(x))


@torch.no_grad()
def test_a_single_layer_is_replaced_as_a_whole() -> None:
    layer = built(lambda: nn.Linear(27, 4))
    masks, x = masked(layer, 0.3), random(2, 27, dtype=torch.float64)
    report = to_csr(layer, masks, x, choose=always)
    assert [c.name for c in report.layers] == ["weight"]
    assert isinstance(report.model, CsrLinear)
    torch.testing.assert_close(report.model(x), layer(x))


@torch.no_grad()
def test_layers_of_a_type_without_csr_products_stay_dense() -> None:
    model = built(mlp, torch.bfloat16)
    x = random(2, 27, dtype=torch.bfloat16)
    report = to_csr(model, masked(model, 0.3), x, choose=always)
    assert report.layers == ()
    assert torch.equal(report.model(x), model(x))
    with pytest.raises(SparsityError, match=r"no CSR product for torch.bfloat16 on cpu"):
        convert()[0].model.to(torch.bfloat16)(x)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"0.weigth": torch.ones(40, 27).bool()}, "Did you mean '0.weight'"),
        ({"0.weight": torch.ones(40, 28).bool()}, r"bool of shape \(40, 27\)"),
        ({"0.weight": torch.ones(40, 27)}, "must be bool"),
        ({"0.weight": torch.zeros(40, 27).bool()}, "off its mask that are not 0"),
    ],
)
def test_masks_that_do_not_fit_the_network_are_refused(masks: Tensors, message: str) -> None:
    with pytest.raises(SparsityError, match=message):
        to_csr(built(mlp), masks, random(2, 27, dtype=torch.float64))


def test_timing_takes_at_least_one_repeat() -> None:
    with pytest.raises(SparsityError, match="at least 1, not 0"):
        to_csr(built(mlp), {}, random(2, 27, dtype=torch.float64), repeats=0)
