"""Intervals between updates, and schedules of drop fraction and density."""

from __future__ import annotations

import pytest

from debiasbench.sparsity import (
    RESTReleased,
    RigL,
    RigLReleased,
    SparsityError,
)
from debiasbench.sparsity.schedules import Interval, annealed, cubic_density


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


@pytest.mark.parametrize(
    ("updater", "fractions"),
    [
        (
            RESTReleased(0.1),
            {0: 0.5, 0.1: 0.4878865, 0.25: 0.4275089, 0.5: 0.2525, 0.75: 0.0774911}
            | {0.9: 0.0171135, 1: 0.005},
        ),
        (
            RigLReleased(0.1),
            {0: 0.3, 0.1: 0.2926585, 0.25: 0.256066, 0.5: 0.15, 0.75: 0.043934, 1: 0},
        ),
    ],
    ids=["rest", "rigl"],
)
def test_fractions_of_an_update_fall_as_in_the_authors_code(
    updater: RigL, fractions: dict[float, float]
) -> None:
    found = {progress: updater.fraction_at(progress) for progress in fractions}
    assert found == pytest.approx(fractions, abs=1e-6)


def test_schedules_run_from_start_to_end_and_stay_there() -> None:
    assert [annealed("cosine", 0.4, 0.1, p) for p in (0, 0.5, 1, 2)] == pytest.approx(
        [0.4, 0.25, 0.1, 0.1]
    )
    assert [annealed("linear", 0.4, 0.2, p) for p in (0, 0.5, 1)] == pytest.approx([0.4, 0.3, 0.2])
    assert annealed("constant", 0.4, 0.1, 1) == 0.4
    assert [cubic_density(1.0, 0.2, p) for p in (0, 0.5, 1, 3)] == pytest.approx(
        [1.0, 0.3, 0.2, 0.2]
    )
