"""Sparse networks at rest and in inference: packed bit for bit, and in CSR the same outputs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from debiasbench.sparsity.csr import CsrConv2d, CsrLinear, CsrReport, to_csr
from debiasbench.sparsity.errors import SparsityError
from debiasbench.sparsity.packed import pack_state, packed_bytes, unpack_state
from debiasbench.sparsity.params import maskable

Tensors = dict[str, Tensor]

BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}
SPECIAL = (0.0, -0.0, math.nan, math.inf, -math.inf)
DIGEST_BYTES = 32


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def bernoulli(density: float, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density


def bits(x: Tensor) -> Tensor:
    return x.view(BITS[x.dtype]) if x.dtype in BITS else x


def assert_same_bits(found: Tensors, expected: Tensors) -> None:
    assert set(found) == set(expected)
    for name, x in expected.items():
        assert found[name].dtype == x.dtype
        assert torch.equal(bits(found[name]), bits(x)), name


# --- packed ---------------------------------------------------------------------------------------

densities = st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.9, 0.98, 1.0])


@st.composite
def floats(draw: st.DrawFn) -> Tensor:
    """Any bits there are, among them not a few special values, of any shape and density."""
    dtype = draw(st.sampled_from(list(BITS)))
    shape = draw(st.lists(st.integers(0, 9), max_size=4))
    seed, density = draw(st.integers(0, 2**31)), draw(densities)
    limits = torch.iinfo(BITS[dtype])
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(
        limits.min, limits.max, shape, generator=generator, dtype=BITS[dtype]
    ).view(dtype)
    which = torch.randint(0, len(SPECIAL), shape, generator=generator)
    special = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.01, 0.5]))
    values = torch.where(special, torch.tensor(SPECIAL, dtype=dtype)[which], values)
    return values.where(torch.rand(shape, generator=generator) < density, 0.0)


others = st.sampled_from(
    [
        torch.tensor(7),  # as num_batches_tracked is
        torch.tensor([True, False, True]),
        torch.arange(6, dtype=torch.uint8).view(2, 3),
        torch.tensor([[1 + 2j, 0j]]),
    ]
)
states = st.dictionaries(st.text(max_size=6), floats() | others, max_size=4).filter(
    lambda state: not any("::" in name for name in state)
)


@given(states)
@settings(max_examples=50)
def test_any_state_comes_back_bit_for_bit_and_takes_no_more_bytes_than_dense(
    state: Tensors,
) -> None:
    packed = pack_state(state)
    unpacked, masks = unpack_state(packed)
    assert_same_bits(unpacked, state)
    assert_same_bits(masks, {n: x != 0 for n, x in state.items() if n in masks})
    assert set(masks) == {n for n, x in state.items() if x.is_floating_point() and x.ndim >= 2}
    assert packed_bytes(packed) <= packed_bytes(state) + DIGEST_BYTES


@given(values=floats(), density=densities, seed=st.integers(0, 2**31), through=st.booleans())
def test_any_mask_comes_back_with_active_zeros_and_signs_of_zeros_off_it(
    values: Tensor, density: float, seed: int, through: bool
) -> None:
    mask = bernoulli(density, *values.shape, seed=seed)
    off = torch.zeros_like(values).copysign(values)  # what a product with the mask leaves
    state = {"w": values.where(mask, off), "b": values}
    packed = pack_state(state, {"w": mask})
    unpacked, masks = unpack_state(packed)
    assert_same_bits(unpacked, state)
    assert_same_bits(masks, {"w": mask})
    dense = packed_bytes(state) + DIGEST_BYTES
    # a full mask is free, others cost at most a bit a weight
    assert packed_bytes(packed) <= dense + (0 if mask.all() else math.ceil(mask.numel() / 8))


# 50 x 80 weights, float32: 16,000 bytes, or 4 a value, 16 for the shape, and the places: bits, 500
# bytes, or 4 an index
@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (0, 16),
        (40, 16 + 40 * 4 + 40 * 4),
        (124, 16 + 124 * 4 + 124 * 4),
        (126, 16 + 126 * 4 + 500),
        (3000, 16 + 3000 * 4 + 500),
        (3870, 16 + 3870 * 4 + 500),
        (3872, 16_000),
        (4000, 16_000),
    ],
)
@pytest.mark.parametrize("given_masks", [True, False])
def test_the_smallest_form_is_taken(kept: int, expected: int, given_masks: bool) -> None:
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(0))
    mask = (order < kept).view(50, 80)
    state = {"w": torch.ones(50, 80) * mask}
    packed = pack_state(state, {"w": mask} if given_masks else None)
    assert packed_bytes(packed) == expected + DIGEST_BYTES


def test_a_sparse_checkpoint_takes_the_bytes_that_its_density_allows() -> None:
    # at a density of 0.0005, 0.4 % of dense: 4 bytes for a value and 4 for its index
    mask = bernoulli(0.0005, 1000, 1000)
    state = {"w": random(1000, 1000) * mask}
    small = packed_bytes(pack_state(state, {"w": mask}, keep_minus_zeros=False))
    assert small == 8 * int(mask.sum()) + 16 + DIGEST_BYTES
    # signs of zeros are a bit each
    assert packed_bytes(pack_state(state, {"w": mask})) == small + 1_000_000 / 8


def test_minus_zeros_come_back_as_zeros_where_they_need_not_be_kept() -> None:
    w = torch.tensor([[-0.0, 2.0, 0.0, 0.0], [0.0, -0.0, -0.0, 3.0]]).repeat(8, 1)
    mask = w != 0
    mask[0, 0] = True  # an active -0.0 is a value like any
    state, masks = unpack_state(pack_state({"w": w}, {"w": mask}, keep_minus_zeros=False))
    expected = w.where(mask, 0.0)
    assert not torch.equal(bits(expected), bits(w))
    assert_same_bits(state, {"w": expected})
    assert_same_bits(masks, {"w": mask})


def test_a_packing_goes_through_safetensors_even_with_shared_and_transposed_tensors(
    tmp_path: Path,
) -> None:
    shared = random(6, 4)
    state = {
        "a": shared, "b": shared, "turned": shared.T, "sparse": random(8, 9) * bernoulli(0.1, 8, 9),
        "empty": torch.zeros(0, 3), "scalar": torch.tensor(-0.0), "steps": torch.tensor(3),
    }  # fmt: skip
    save_file(pack_state(state), tmp_path / "packed.safetensors")
    unpacked, _ = unpack_state(load_file(tmp_path / "packed.safetensors"))
    assert_same_bits(unpacked, state)


def test_neither_packing_nor_unpacking_shares_memory() -> None:
    state = {"dense": torch.ones(2, 2), "plain": torch.ones(3), "sparse": torch.eye(64)}
    packed = pack_state(state)
    for x in state.values():
        x.zero_()
    for x in unpack_state(packed)[0].values():
        assert x.any()
        x.zero_()
    assert unpack_state(packed)[0]["dense"].all()  # the digest would tell if it had changed


def damaged() -> Tensors:
    # sparse by index and by bits (with signs), dense with active zeros and without, and no mask
    state = {
        "indices": torch.ones(20, 20) * bernoulli(0.02, 20, 20),
        "bits": random(20, 20) * bernoulli(0.2, 20, 20),
        "full": torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
        "dense": torch.ones(4, 4),
        "plain": torch.ones(3),
    }
    masks = {name: x != 0 for name, x in state.items() if name != "plain"}
    masks["full"] |= True
    return pack_state(state, masks)


def test_every_form_is_among_the_packings_that_are_damaged_here() -> None:
    assert set(damaged()) == {
        "indices::shape", "indices::active", "indices::values",
        "bits::shape", "bits::active", "bits::values", "bits::minus_zeros",
        "full::dense", "full::inactive", "dense::dense", "plain", "::digest",
    }  # fmt: skip


@pytest.mark.parametrize("key", list(damaged()))
def test_a_packing_without_one_of_its_parts_is_refused(key: str) -> None:
    packed = damaged()
    del packed[key]
    with pytest.raises(SparsityError, match=r"damaged|no packed state"):
        unpack_state(packed)


@pytest.mark.parametrize("key", [key for key, x in damaged().items() if x.numel()])
@given(data=st.data())
@settings(max_examples=10)
def test_a_packing_with_any_bit_flipped_is_refused(key: str, data: st.DataObject) -> None:
    packed = damaged()
    raw = packed[key].flatten().view(torch.uint8)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    packed[key] = raw.view(packed[key].dtype).view(packed[key].shape)
    with pytest.raises(SparsityError, match="damaged"):
        unpack_state(packed)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: {**p, "indices::active": p["indices::active"] + 400},  # out of range
        lambda p: {**p, "indices::active": p["indices::active"] - 400},
        lambda p: {**p, "indices::active": p["indices::active"][1:]},  # wrong count
        lambda p: {**p, "indices::values": p["indices::values"][1:]},
        lambda p: {**p, "bits::active": p["bits::active"][1:]},
        lambda p: {**p, "bits::shape": torch.tensor([10, 40])},
        lambda p: {**p, "bits::shape": torch.tensor([2**40, 2**20])},
        lambda p: {**p, "plain": p["plain"].half()},
        lambda p: {**p, "plain": p["plain"].view(3, 1)},
        lambda p: {**p, "more": torch.ones(1)},
        lambda p: {("renamed" if key == "plain" else key): x for key, x in p.items()},
        lambda p: {**p, "bits::values": p["bits::active"], "bits::active": p["bits::values"]},
    ],
)
def test_a_packing_with_wrong_parts_is_refused(change: Callable[[Tensors], Tensors]) -> None:
    with pytest.raises(SparsityError, match="damaged"):
        unpack_state(change(damaged()))


def test_a_state_that_was_never_packed_is_refused() -> None:
    with pytest.raises(SparsityError, match="no packed state"):
        unpack_state({"w": torch.ones(2, 2)})


@pytest.mark.parametrize("name", ["w::values", "::active", "a::b::dense", "::digest"])
def test_names_that_a_packing_uses_itself_are_refused(name: str) -> None:
    with pytest.raises(SparsityError, match=f"'{name}' a meaning of its own"):
        pack_state({name: torch.ones(2)})


def test_names_that_only_resemble_those_of_a_packing_are_kept() -> None:
    names = ("values", "w.values", ":values", "w::", "::", "w::dense::", "w::Dense", "digest", "")
    state = {name: torch.eye(40) * (1 + i) for i, name in enumerate(names)}
    assert_same_bits(unpack_state(pack_state(state))[0], state)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"v": torch.ones(2, 2).bool()}, "Unknown tensor 'v'"),
        ({"w": torch.ones(2, 3).bool()}, r"bool of shape \(2, 2\), not torch.bool of \(2, 3\)"),
        ({"w": torch.ones(2, 2)}, "must be bool"),
        ({"w": torch.eye(2).bool()}, "w has weights off its mask"),
        ({"nan": torch.tensor([False])}, "nan has weights off its mask"),
        ({"n": torch.tensor(True)}, "n is torch.int64"),
    ],
)
def test_masks_that_do_not_fit_the_state_are_refused(masks: Tensors, message: str) -> None:
    state = {"w": torch.ones(2, 2), "nan": torch.tensor([math.nan]), "n": torch.tensor(1)}
    with pytest.raises(SparsityError, match=message):
        pack_state(state, masks)


# --- csr ------------------------------------------------------------------------------------------


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
