"""Exchanges keep exact counts, of the whole mask and of every row of a pattern."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from debiasbench.sparsity import (
    SparsityError,
    drop_and_grow,
)
from debiasbench.sparsity.patterns import Pattern, read_pattern
from debiasbench.sparsity.topology import drop_and_grow_in_rows, top_in_rows


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
