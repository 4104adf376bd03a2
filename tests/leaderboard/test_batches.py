"""Many tables at once give the numbers of each."""

from __future__ import annotations

import numpy as np
import pytest

from debiasbench.leaderboard import crossed, groups


def split(seed: int, seeds: int) -> tuple[np.ndarray, crossed.Groups]:
    rng = np.random.default_rng(seed)
    sizes = [1, 5, 40, 13]
    of = crossed.Groups.of(sizes, rng.dirichlet(np.ones(4)).tolist())
    tables = rng.random((7, seeds, sum(sizes))) < rng.random((7, 1, sum(sizes)))
    tables[0], tables[1] = True, False
    tables[2] = tables[2][:1]  # seeds that agree
    return tables, of


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_means_and_variances_are_those_of_each_table(seeds: int) -> None:
    tables, of = split(seeds, seeds)
    found = crossed.by_group(tables, of)
    for i in range(len(tables)):
        for many, (one,) in zip(found, crossed.by_group(tables[i : i + 1], of), strict=True):
            np.testing.assert_array_equal(many[i], one)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_parts_of_tables_and_of_differences_are_those_of_each(seeds: int) -> None:
    tables, of = split(seeds, seeds)
    x = tables.astype(np.int8)
    differences = x[[1, 2, 3, 4, 0]] - x[[2, 3, 4, 5, 1]]
    for many in (tables, differences):
        found = crossed.parts_of(*crossed.by_group(many, of), of)
        for table, part in zip(many, found, strict=True):
            one = crossed.parts(table.T, of)
            assert (part.seeds, part.freedom) == (one.seeds, one.freedom)
            for name in ("mean", "v_seeds", "v_samples"):
                assert getattr(part, name) == pytest.approx(
                    getattr(one, name), rel=1e-12, abs=1e-16
                )


@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize("level", [0.05, 0.001])
def test_bounds_of_worst_groups_are_those_of_each(seeds: int, level: float) -> None:
    tables, of = split(seeds, seeds)
    means, v_samples, _ = crossed.by_group(tables, of)
    low, high, _ = groups.worst_groups(means, v_samples, of, level)
    for table, one, other in zip(tables, low, high, strict=True):
        found = groups.worst_group(table.T, of, level)
        assert (one, other) == pytest.approx((found.low, found.high), abs=1e-12)


@pytest.mark.parametrize(
    "sizes", [[5] * 100, [100] * 100, [450, 50, 50, 450], [2255, 2255, 642, 642], [1]]
)
def test_noise_floors_are_those_of_each_accuracy(sizes: list[int]) -> None:
    accuracies = np.array([0.0, 1e-9, 0.003, 0.2, 0.5, 0.8, 0.97, 0.999, 1.0])
    expected = [groups.noise_floor(float(p), sizes) for p in accuracies]
    assert groups.noise_floors(accuracies, sizes) == pytest.approx(expected, abs=1e-12)


def test_chunks_have_every_row_once_and_a_bounded_size() -> None:
    found = [i for some in crossed.chunks(10, crossed.MOST // 3) for i in range(10)[some]]
    assert found == list(range(10))
    assert max(len(range(10)[some]) for some in crossed.chunks(10, crossed.MOST // 3)) == 3
    assert list(crossed.chunks(2, 10 * crossed.MOST)) == [slice(0, 1), slice(1, 2)]
