"""Layers in CSR compute what dense ones do, and are taken where they are faster."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from debiasbench.sparsity.csr import CsrConv2d, CsrLinear, CsrReport, to_csr
from debiasbench.sparsity.errors import SparsityError
from debiasbench.sparsity.params import maskable
from tests.sparsity.test_packed import Tensors, assert_same_bits, bernoulli, random


def always(dense_ms: float, csr_ms: float) -> bool:
    return True


def never(dense_ms: float, csr_ms: float) -> bool:
    return False


def built(build: Callable[[], nn.Module], dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().to(dtype)


@torch.no_grad()
def masked(model: nn.Module, density: float, seed: int = 0) -> Tensors:
    """Mask every weight of the model at random."""
    found: Tensors = {}
    for i, (name, p) in enumerate(maskable(model).items()):
        found[name] = bernoulli(density, *p.shape, seed=seed + i)
        p.mul_(found[name])
    return found


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(27, 40), nn.ReLU(), nn.Linear(40, 30, bias=False), nn.ReLU(), nn.Linear(30, 3)
    )


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=(2, 1), dilation=2, bias=False), nn.ReLU(),
        nn.Conv2d(12, 8, (3, 5), padding="same", dilation=(1, 2)), nn.ReLU(),
        nn.Conv2d(8, 8, (1, 3), stride=(1, 2), padding="valid"), nn.ReLU(),
        nn.Conv2d(8, 8, 1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(80, 4),
    )  # fmt: skip


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
        found, expected = report.model(x), model(x)
        assert found.shape == expected.shape
        assert found.dtype == dtype
        tolerance = 1e-10 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("density", [0.02, 0.15, 1.0])  # of 8 filters: 15, 73 and 100 % read
@torch.no_grad()
def test_convolutions_pick_only_what_is_read_where_that_is_little(density: float) -> None:
    model = built(conv_net).eval()
    masks = masked(model, density)
    x = random(2, 3, 9, 11, dtype=torch.float64)
    report = to_csr(model, masks, x, repeats=1, choose=always)
    first = report.model.get_submodule("0")
    assert isinstance(first, CsrConv2d)
    places = masks["0.weight"].any(0)  # by any filter
    if density > 0.1:
        assert places.float().mean() > 0.5
        assert first.read is None
        assert first.shape == (8, 27)
    else:
        assert first.read is not None
        assert first.read.tolist() == places.nonzero().T.tolist()
        assert first.shape == (8, int(places.sum()))


@pytest.mark.parametrize("shape", [(27,), (2, 3, 27), (0, 27), (5, 0, 27)])
@torch.no_grad()
def test_a_linear_layer_in_csr_takes_inputs_of_any_rank(shape: tuple[int, ...]) -> None:
    layer = built(lambda: nn.Linear(27, 4))
    mask = masked(layer, 0.3)["weight"]
    x = random(*shape, dtype=torch.float64)
    found = CsrLinear(layer, mask)(x)
    torch.testing.assert_close(found, layer(x), atol=1e-12, rtol=0)
    assert found.is_contiguous()


@torch.no_grad()
def test_a_convolution_in_csr_takes_an_image_without_a_batch() -> None:
    layer = built(lambda: nn.Conv2d(3, 4, 3))
    mask = masked(layer, 0.3)["weight"]
    x = random(3, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(CsrConv2d(layer, mask)(x), layer(x), atol=1e-12, rtol=0)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@torch.no_grad()
def test_a_convolution_in_csr_pads_an_even_kernel_more_on_one_side() -> None:
    layer = built(lambda: nn.Conv2d(3, 4, (2, 4), padding="same", dilation=(1, 3)))
    mask = masked(layer, 0.3)["weight"]
    x = random(2, 3, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(CsrConv2d(layer, mask)(x), layer(x), atol=1e-12, rtol=0)


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


def convert(density: float = 0.1, seed: int = 0) -> tuple[CsrReport, nn.Module, Tensor]:
    """Return an MLP in CSR, the dense one, and an input; it has been run, so all is cached."""
    model = built(mlp).eval()
    x = random(7, 27, dtype=torch.float64)
    report = to_csr(model, masked(model, density, seed), x, repeats=1, choose=always)
    report.model(x)
    return report, model, x


@pytest.mark.parametrize("assign", [False, True])
@torch.no_grad()
def test_a_state_dict_goes_into_another_converted_network(assign: bool) -> None:
    one, dense, x = convert()
    model = built(mlp)
    masks = {
        name: mask.flatten().roll(5).view(mask.shape)  # as many weights, in other places
        for name, mask in masked(model, 0.1).items()
    }
    for name, p in maskable(model).items():
        p.copy_(masks[name] * 0.5)
    other = to_csr(model, masks, x, repeats=1, choose=always).model
    assert not torch.allclose(other(x), dense(x))
    state = one.model.state_dict()
    assert set(state) == {
        "0.crow", "0.col", "0.values", "0.bias", "2.crow", "2.col", "2.values",
        "4.crow", "4.col", "4.values", "4.bias",
    }  # fmt: skip
    assert {state["0.crow"].dtype, state["0.col"].dtype} == {torch.int32}
    other.load_state_dict(state, assign=assign)
    assert torch.equal(other(x), one.model(x))


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_dict_that_is_no_csr_matrix_is_refused_when_it_is_used(assign: bool) -> None:
    report, _, x = convert()
    state = {name: values.clone() for name, values in report.model.state_dict().items()}
    state["2.col"][0] = 40  # of 40 columns
    report.model.load_state_dict(state, assign=assign)
    with pytest.raises(SparsityError, match="no CSR matrix"):
        report.model(x)


@torch.no_grad()
def test_a_converted_network_can_change_its_type_and_be_copied_after_it_ran() -> None:
    report, dense, x = convert()
    other = copy.deepcopy(report.model)
    other.get_submodule("0").values.zero_()
    torch.testing.assert_close(report.model(x), dense(x))
    assert not torch.allclose(other(x), dense(x))
    found = report.model.float()(x.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, dense.float()(x.float()))


def test_training_with_layers_in_csr_is_refused() -> None:
    report, dense, x = convert()
    report.model.train()
    with pytest.raises(SparsityError, match="cannot be trained"):
        report.model(x)
    with torch.no_grad():
        torch.testing.assert_close(report.model(x), dense(x))


def test_gradients_of_the_input_pass_through_layers_in_csr() -> None:
    report, dense, x = convert()
    gradients = []
    for model in (report.model, dense):
        leaf = x.clone().requires_grad_()
        model(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


@torch.no_grad()
def test_a_dense_layer_stays_dense_if_that_is_chosen() -> None:
    model = built(mlp).eval()
    x = random(7, 27, dtype=torch.float64)
    report = to_csr(model, {}, x, choose=never)
    assert [(c.name, c.density, c.chosen) for c in report.layers] == [
        ("0.weight", 1.0, False), ("2.weight", 1.0, False), ("4.weight", 1.0, False),
    ]  # fmt: skip
    assert torch.equal(report.model(x), model(x))
    assert list(report.model.state_dict()) == list(model.state_dict())


@torch.no_grad()
def test_every_layer_is_chosen_for_itself_by_its_times() -> None:
    model = built(mlp)
    masks = masked(model, 0.1)
    del masks["2.weight"]
    told: list[tuple[float, float]] = []

    def only_the_second(dense_ms: float, csr_ms: float) -> bool:
        told.append((dense_ms, csr_ms))
        return len(told) == 2

    x = random(7, 27, dtype=torch.float64)
    report = to_csr(model, masks, x, choose=only_the_second)
    assert [c.chosen for c in report.layers] == [False, True, False]
    assert [(c.dense_ms, c.csr_ms) for c in report.layers] == told
    assert all(ms > 0 for pair in told for ms in pair)
    densities = [int(m.sum()) / m.numel() for m in (masks["0.weight"], masks["4.weight"])]
    assert [report.layers[0].density, report.layers[2].density] == densities
    assert [type(x) for x in report.model][::2] == [nn.Linear, CsrLinear, nn.Linear]


def test_without_a_choice_the_faster_layer_is_taken() -> None:
    model = built(mlp)
    report = to_csr(model, masked(model, 0.1), random(7, 27, dtype=torch.float64))
    for choice in report.layers:
        assert choice.chosen == (choice.csr_ms < choice.dense_ms)


class Odd(nn.Module):
    """What a converter meets: layers shared, tied, hooked, derived, parametrised and not called."""

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
def test_only_layers_that_are_no_more_than_they_seem_are_replaced() -> None:
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
