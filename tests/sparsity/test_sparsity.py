"""Exact budgets, exact exchanges, and nothing off the mask."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from debiasbench.core.model import Shape
from debiasbench.models.cnn import CNN
from debiasbench.sparsity import (
    SparsityError,
    SparsityTooHigh,
    allocate,
    connectivity,
    count_flops,
    drop_and_grow,
    global_masks,
    grasp_scores,
    magnitude_scores,
    maskable,
    snip_scores,
)
from debiasbench.sparsity.distributions import DISTRIBUTIONS, Shares, erk
from debiasbench.sparsity.masks import digest, pack, unpack
from debiasbench.sparsity.params import select
from debiasbench.sparsity.patterns import Pattern, read_pattern
from debiasbench.sparsity.schedules import Interval, annealed, cubic_density
from debiasbench.sparsity.topology import drop_and_grow_in_rows, top_in_rows

CNN_SHAPES = {
    "conv1": (64, 3, 4, 4),
    "conv2": (128, 64, 4, 4),
    "conv3": (256, 128, 4, 4),
    "fc": (10, 256),
}


def test_erk_budgets_of_the_cnn_of_rest() -> None:
    # density 0.0005 of 660,992 weights; shares in proportion to sum(shape): 75, 200, 392, 266
    assert allocate(CNN_SHAPES, 0.0005) == {"conv1": 26, "conv2": 71, "conv3": 139, "fc": 94}
    full = allocate(CNN_SHAPES, 0.05)
    assert (full["conv1"], full["fc"]) == (3072, 2560)  # both dense, as in the released code


def test_uniform_budgets_share_one_density() -> None:
    assert allocate({"a": (10, 10), "b": (20, 10)}, 0.1, "uniform") == {"a": 10, "b": 20}


layer_shapes = st.lists(
    st.lists(st.integers(1, 40), min_size=2, max_size=4), min_size=1, max_size=8
).map(lambda shapes: {f"p{i}": tuple(shape) for i, shape in enumerate(shapes)})


@pytest.mark.parametrize("distribution", list(DISTRIBUTIONS))
@given(shapes=layer_shapes, density=st.floats(0, 1, exclude_min=True))
def test_the_sum_of_budgets_is_the_request_for_any_shapes(
    distribution: str, shapes: dict[str, tuple[int, ...]], density: float
) -> None:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    try:
        budgets = allocate(shapes, density, distribution)
    except SparsityTooHigh as error:
        least = float(str(error).rsplit(" ", 1)[1])
        assert least > density or distribution == "uniform_plus"
        if distribution != "uniform_plus":  # its last layer needs more as density grows
            assert sum(allocate(shapes, min(1.0, least), distribution).values()) > 0
        return
    assert sum(budgets.values()) == round(density * sum(sizes.values()))
    assert all(1 <= budgets[name] <= sizes[name] for name in shapes)


def test_uniform_plus_keeps_the_first_layer_dense_and_a_fifth_of_the_last() -> None:
    budgets = allocate(CNN_SHAPES, 0.05, "uniform_plus")
    assert (budgets["conv1"], budgets["fc"]) == (3072, 512)
    rest = round(0.05 * 660_992) - 3072 - 512
    assert budgets["conv2"] == pytest.approx(rest * 131_072 / 655_360, abs=1)


def test_er_looks_at_inputs_and_outputs_alone_and_erk_at_kernels_too() -> None:
    shapes = {"a": (10, 20, 3, 3), "b": (30, 40)}
    er, kernel = allocate(shapes, 0.1, "er"), allocate(shapes, 0.1, "erk")
    assert er["a"] / er["b"] == pytest.approx(30 * 9 / 70, rel=0.02)
    assert kernel["a"] / kernel["b"] == pytest.approx(36 / 70, rel=0.02)


def test_erk_to_the_power_of_zero_is_uniform() -> None:
    flat = allocate(CNN_SHAPES, 0.02, lambda shapes, d: erk(shapes, d, power=0.0))
    assert flat == allocate(CNN_SHAPES, 0.02, "uniform")


def test_densities_by_layer_replace_the_distribution() -> None:
    shapes = {"a": (10, 10), "b": (20, 10)}
    assert allocate(shapes, {"a": 1.0, "b": 0.25}) == {"a": 100, "b": 50}
    with pytest.raises(SparsityError, match="'b' has no density"):
        allocate(shapes, {"a": 1.0})
    with pytest.raises(SparsityError, match=r"Unknown layer 'c'.*Available: a, b"):
        allocate(shapes, {"a": 1.0, "b": 0.1, "c": 0.1})


def test_a_custom_distribution_gives_wishes_and_minimum_densities() -> None:
    def halves(shapes: object, density: float) -> Shares:
        return Shares({"a": 1.0, "b": 1.0}, least={"a": 0.9})

    assert allocate({"a": (10, 10), "b": (20, 10)}, 0.4, halves) == {"a": 90, "b": 30}


def test_the_other_layers_get_sparser_if_some_are_kept_dense() -> None:
    budgets = allocate({"a": (10, 10), "b": (30, 10)}, 0.5, "uniform", dense=["a"])
    assert budgets == {"a": 100, "b": 100}


def test_an_unknown_distribution_error_suggests_the_nearest_name() -> None:
    with pytest.raises(SparsityError, match=r"Unknown distribution 'unifrm'. Did you mean 'unif"):
        allocate(CNN_SHAPES, 0.1, "unifrm")


def test_erk_agrees_with_the_capping_loop_of_its_authors() -> None:
    # restated from Evci et al., section 3: layers that would exceed density 1 become dense
    density, sizes = 0.2, {n: math.prod(s) for n, s in CNN_SHAPES.items()}
    raw = {n: sum(s) / math.prod(s) for n, s in CNN_SHAPES.items()}
    dense: set[str] = set()
    while True:
        free = [n for n in sizes if n not in dense]
        target = density * sum(sizes.values()) - sum(sizes[n] for n in dense)
        factor = target / sum(raw[n] * sizes[n] for n in free)
        over = [n for n in free if factor * raw[n] > 1]
        if not over:
            break
        dense |= {max(over, key=lambda n: raw[n])}
    expected = {n: sizes[n] if n in dense else factor * raw[n] * sizes[n] for n in sizes}
    assert allocate(CNN_SHAPES, density) == pytest.approx(expected, abs=1)


def test_density_one_keeps_everything() -> None:
    assert allocate(CNN_SHAPES, 1.0) == {n: math.prod(s) for n, s in CNN_SHAPES.items()}


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, float("nan")])
def test_a_density_outside_its_range_is_refused(density: float) -> None:
    with pytest.raises(ValueError, match=r"density must be in \(0, 1\]"):
        allocate(CNN_SHAPES, density)


def test_an_infeasible_density_names_the_smallest_feasible_one() -> None:
    with pytest.raises(SparsityTooHigh, match=r"smallest feasible density is 0\.02"):
        allocate({"a": (10, 10), "b": (10, 10), "c": (1, 100), "d": (100, 1)}, 0.001, min_nnz=2)


@pytest.mark.parametrize(
    ("mask", "drop", "grow", "k", "expected"),
    [  # scores one digit a weight
        ("1100", "1900", "0012", 1, "0101"),
        ("1100", "1900", "0000", 1, "1100"),  # ties: the lower index, here the dropped weight
        ("1100", "1900", "9012", 1, "1100"),  # dropped and grown again
        ("1110", "0000", "0000", 2, "1110"),
        ("1010", "5070", "0302", 0, "1010"),
        ("1111", "4321", "0000", 1, "1111"),  # a full layer can only grow what it dropped
    ],
)
def test_drop_and_grow_on_a_table(mask: str, drop: str, grow: str, k: int, expected: str) -> None:
    got = drop_and_grow(digits(mask).bool(), digits(drop), digits(grow), k)
    assert text(got) == expected


def digits(row: str) -> Tensor:
    return torch.tensor([float(d) for d in row])


def text(mask: Tensor) -> str:
    return "".join(str(int(v)) for v in mask.flatten())


def test_more_or_fewer_can_be_grown_than_dropped() -> None:
    mask, size, gradient = digits("1100").bool(), digits("1900"), digits("0012")
    assert text(drop_and_grow(mask, size, gradient, 1, grow=0)) == "0100"
    assert text(drop_and_grow(mask, size, gradient, 0, grow=2)) == "1111"
    with pytest.raises(ValueError, match="cannot drop 3 and grow 3 with 2 of 4 weights active"):
        drop_and_grow(mask, size, gradient, 3)


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, int]:
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 9)))
    size = shape[0] * shape[1]
    scores = st.one_of(
        st.floats(-9, 9, width=32), st.just(0.0), st.integers(0, 2).map(float), st.just(math.nan)
    )
    values = [draw(st.lists(scores, min_size=size, max_size=size)) for _ in range(2)]
    mask = torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    k = draw(st.integers(0, int(mask.sum())))
    drop, grow = (torch.tensor(v).view(shape) for v in values)
    return mask.view(shape), drop, grow, k


@given(exchanges())
def test_an_exchange_conserves_the_count_and_never_grows_what_it_kept(
    case: tuple[Tensor, Tensor, Tensor, int],
) -> None:
    mask, drop, grow, k = case
    new = drop_and_grow(mask, drop, grow, k)
    kept = drop_and_grow(mask, drop, grow, k, grow=0)
    assert int(new.sum()) == int(mask.sum())
    assert int(kept.sum()) == int(mask.sum()) - k
    assert not (kept & ~mask).any()  # kept and dropped weights were active
    assert not (kept & ~new).any()  # grown weights were not among the kept ones


@given(exchanges())
def test_an_exchange_in_rows_conserves_the_count_of_every_row(
    case: tuple[Tensor, Tensor, Tensor, int],
) -> None:
    mask, drop, grow, k = case
    new = drop_and_grow_in_rows(mask, drop, grow, k)
    assert new.sum(1).tolist() == mask.sum(1).tolist()


def test_the_best_of_rows_are_chosen_among_candidates_only() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0], [0.0, 0.0, math.nan]])
    among = torch.tensor([[False, True, True], [True, False, True]])
    chosen = top_in_rows(scores, among, torch.tensor([1, 2]))
    assert chosen.int().tolist() == [[0, 1, 0], [1, 0, 1]]


def test_n_of_m_holds_in_every_block_of_inputs() -> None:
    pattern = Pattern(2, 4)
    scores = torch.rand(6, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = pattern.best(scores, pattern.nnz("conv", scores.shape, 0))
    blocks = mask.movedim(1, -1).reshape(-1, 4)
    assert (blocks.sum(1) == 2).all()
    assert torch.equal(pattern.back(pattern.rows(scores), scores.shape), scores)
    with pytest.raises(SparsityError, match="conv has 6 inputs, which is not a multiple of 4"):
        pattern.per_row("conv", torch.Size([2, 6]), 5)


def test_constant_fan_in_gives_every_neuron_as_many_inputs() -> None:
    scores = torch.rand(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = Pattern().best(scores, Pattern().nnz("conv", scores.shape, 21))
    assert mask.flatten(1).sum(1).tolist() == [4] * 5


@pytest.mark.parametrize("name", ["2-4", "5:4", "0:4", "block"])
def test_an_unknown_pattern_is_refused(name: str) -> None:
    with pytest.raises(SparsityError, match=f"Unknown pattern '{name}'"):
        read_pattern(name)


@pytest.mark.parametrize(
    ("every", "steps"),
    [
        ("100", 100),
        ("100 steps", 100),
        ("2 epochs", 40),
        ("0.5 epochs", 10),
        ("5%", 50),
        ("0.01%", 1),
        ("1 step", 1),
    ],
)
def test_an_interval_is_steps_epochs_or_a_part_of_the_training(every: str, steps: int) -> None:
    assert Interval.read(every).steps(1000, 20) == steps


@pytest.mark.parametrize("every", ["0", "-3", "often", "1.5", "101%", "nan", ""])
def test_an_invalid_interval_is_refused(every: str) -> None:
    with pytest.raises(SparsityError, match="every="):
        Interval.read(every)


def test_schedules_run_from_start_to_end_and_stay_there() -> None:
    assert [annealed("cosine", 0.4, 0.1, p) for p in (0, 0.5, 1, 2)] == pytest.approx(
        [0.4, 0.25, 0.1, 0.1]
    )
    assert [annealed("linear", 0.4, 0.2, p) for p in (0, 0.5, 1)] == pytest.approx([0.4, 0.3, 0.2])
    assert annealed("constant", 0.4, 0.1, 1) == 0.4
    assert [cubic_density(1.0, 0.2, p) for p in (0, 0.5, 1, 3)] == pytest.approx(
        [1.0, 0.3, 0.2, 0.2]
    )


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_a_packed_mask_comes_back(bits: list[bool]) -> None:
    mask = torch.tensor(bits)
    packed = pack(mask)
    assert len(packed) == math.ceil(len(bits) / 8)
    assert torch.equal(unpack(packed, mask.shape), mask)
    assert digest({"a": mask}) != digest({"a": ~mask})
    with pytest.raises(ValueError, match="A packed mask of shape"):
        unpack(packed, (len(bits) + 8,))


def small_net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
            nn.Linear(8 * 36, 5),
        )  # fmt: skip


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


def test_snip_scores_are_weight_times_gradient_on_the_real_initialisation() -> None:
    net = nn.Linear(3, 2, bias=False)
    before = net.weight.detach().clone()
    x = torch.tensor([[1.0, -2.0, 0.5]])
    scores = snip_scores(net, lambda: net(x).sum())
    assert torch.allclose(scores["weight"], (before * x).abs())
    other = snip_scores(net, lambda: net(x).sum(), reinitialise=torch.Generator().manual_seed(0))
    assert not torch.allclose(other["weight"], scores["weight"])
    assert torch.equal(net.weight, before)


def test_grasp_scores_are_weight_times_hessian_times_gradient() -> None:
    net = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 2.0]]))
    hessian = torch.tensor([[2.0, 1.0], [1.0, 4.0]])
    scores = grasp_scores(net, lambda: 0.5 * (net.weight @ hessian @ net.weight.T).sum())
    gradient = net.weight.detach() @ hessian
    assert torch.allclose(scores["weight"], net.weight.detach() * (gradient @ hessian))


@pytest.mark.parametrize("tie", [0.0, 1.0])
def test_ties_never_change_a_global_budget(tie: float) -> None:
    scores = {"a": torch.full((10, 10), tie), "b": torch.full((4, 5), tie)}
    masks = global_masks(scores, 0.25)
    assert sum(int(m.sum()) for m in masks.values()) == 30
    assert all(m.any() for m in masks.values())


def test_global_masks_keep_the_highest_scores_and_one_in_every_layer() -> None:
    scores = {"a": torch.arange(6.0).view(2, 3) + 10, "b": torch.arange(4.0).view(2, 2)}
    masks = global_masks(scores, 0.3)
    assert masks["a"].int().tolist() == [[0, 0, 0], [0, 1, 1]]
    assert masks["b"].int().tolist() == [[0, 0], [0, 1]]
    with pytest.raises(SparsityTooHigh, match=r"smallest feasible density is 0\.7"):
        global_masks(scores, 0.3, dense=["a"])
    assert set(magnitude_scores(small_net())) == {"0.weight", "4.weight"}


def test_connectivity_counts_the_weights_on_a_path_to_an_output() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    masks = {
        "0.weight": torch.tensor([[1, 0], [1, 1], [0, 0]]).bool(),
        "2.weight": torch.tensor([[0, 1, 1], [0, 0, 0]]).bool(),
    }  # hidden 0 is read by nobody, hidden 2 has no input
    paths = connectivity(net, masks, torch.zeros(1, 2))
    assert (paths.kept, paths.useful) == (5, 3)
    assert (paths.outputs, paths.of_outputs) == (1, 2)


def test_layer_flops_add_up_to_those_of_torch_and_to_the_formula() -> None:
    net = CNN().build(Shape(input=(3, 28, 28), classes=10))
    with count_flops(net) as flops:
        net(torch.zeros(2, 3, 28, 28))
    macs = 14 * 14 * 3072 + 7 * 7 * 131072 + 3 * 3 * 524288 + 2560
    assert flops.total == sum(flops.by_parameter.values()) == 2 * 2 * macs


def test_layer_flops_of_transposed_and_grouped_convolutions_and_attention_agree_with_torch() -> (
    None
):
    convolutions = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2), nn.ConvTranspose2d(8, 3, 3, stride=2)
    )
    with count_flops(convolutions) as flops:
        convolutions(torch.zeros(2, 4, 9, 9))
    assert flops.total == sum(flops.by_parameter.values())
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.zeros(3, 5, 8)
    with count_flops(attention) as flops:
        attention(x, x, x, need_weights=True)
    scores = 2 * 2 * 3 * 5 * 5 * 8  # two products of 3 x 2 heads x 5 x 5 x 4, no weights in them
    assert flops.total == sum(flops.by_parameter.values()) + scores
