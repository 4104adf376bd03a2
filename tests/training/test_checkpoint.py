"""Checkpoints: what goes in comes out, and no damage passes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from debiasbench.common import atomic
from debiasbench.training import checkpoint
from debiasbench.training.checkpoint import DamagedCheckpoint, dumps, loads

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
states = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(states)
def test_plain_values_come_back_as_they_were(state: object) -> None:
    again = loads(dumps(state))
    assert again == state
    assert type(again) is type(state)


def test_the_state_of_an_optimizer_comes_back_bit_for_bit() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    again = loads(dumps(optimizer.state_dict()))
    other = torch.optim.AdamW(model.parameters())
    other.load_state_dict(again)
    for mine, its in zip(
        optimizer.state_dict()["state"].values(), other.state_dict()["state"].values(), strict=True
    ):
        assert all(torch.equal(mine[k], its[k]) for k in mine)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3),
        torch.tensor([math.nan, math.inf, -0.0]),
        torch.zeros(0, 3),
        torch.arange(6).view(2, 3).T,
        torch.tensor([True, False]),
        torch.get_rng_state(),
        torch.ones(2, dtype=torch.bfloat16),
    ],
    ids=lambda t: f"{t.dtype} {tuple(t.shape)}",
)
def test_tensors_of_every_kind_come_back_bit_for_bit(tensor: torch.Tensor) -> None:
    again = loads(dumps({"x": tensor}))["x"]
    assert again.dtype == tensor.dtype
    assert again.shape == tensor.shape
    assert torch.equal(
        again.contiguous().view(-1).view(torch.uint8) if again.dim() else again,
        tensor.contiguous().view(-1).view(torch.uint8) if tensor.dim() else tensor,
    )


def test_a_tensor_that_occurs_twice_is_written_once() -> None:
    x = torch.zeros(10_000)
    assert len(dumps({"a": x, "b": [x]})) < 1.1 * len(dumps({"a": x}))


def test_what_it_cannot_hold_is_named_by_its_place() -> None:
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a set"):
        dumps({"a": [1, {2}]})
    with pytest.raises(TypeError, match="keys must be strings or integers"):
        dumps({(1, 2): 3})


def test_no_damage_passes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    checkpoint.save(path, {"x": torch.arange(100), "step": 3})
    whole = path.read_bytes()
    for cut in range(0, len(whole), 37):
        path.write_bytes(whole[:cut])
        with pytest.raises(DamagedCheckpoint, match="a: it"):
            checkpoint.load(path)
    for at in range(0, len(whole), 41):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DamagedCheckpoint):
            checkpoint.load(path)


def test_the_one_before_is_kept_until_the_next_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    checkpoint.save(path, 1)
    checkpoint.save(path, 2)
    assert checkpoint.load(path) == 2
    assert checkpoint.load(checkpoint.previous(path)) == 1

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, 3)
    assert checkpoint.load(path) == 2
