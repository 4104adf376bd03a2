"""Budgets of layers are exact, and follow the published distributions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debiasbench.sparsity import (
    SparsityError,
    SparsityTooHigh,
    allocate,
)
from debiasbench.sparsity.distributions import DISTRIBUTIONS, Shares, erk

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


@pytest.mark.parametrize(
    ("density", "expected"),
    [
        (0.05, (17.792, 31.397, 27.211)),
        (0.2, (71.167, 125.589, 108.844)),
        (0.5, (216, 388, 160)),  # the first and the last are dense
    ],
)
def test_erk_budgets_are_the_expected_counts_of_the_authors_of_rest(
    density: float, expected: tuple[float, ...]
) -> None:
    shapes = {"conv1": (8, 3, 3, 3), "conv2": (16, 8, 3, 3), "fc": (10, 16)}
    assert list(allocate(shapes, density).values()) == pytest.approx(expected, abs=0.7)


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
