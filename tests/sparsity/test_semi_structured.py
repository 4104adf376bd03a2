"""Linear layers with 2:4 weights get 2:4 kernels where these are faster; others stay dense.

The kernels need a GPU. On a CPU, a stand-in for the conversion shows which layers are converted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from debiasbench.sparsity import SparsityError, maskable, to_semi_structured
from debiasbench.sparsity.patterns import Pattern
from debiasbench.sparsity.semi_structured import SemiStructuredReport
from tests.sparsity.random_tensors import Tensors, assert_same_bits, random


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Flatten(),
            nn.Linear(4 * 16, 96),  # 2
            nn.ReLU(),
            nn.Linear(96, 64),  # 4: 96 inputs
            nn.ReLU(),
            nn.Linear(64, 64, bias=False),  # 6
            nn.ReLU(),
            nn.Linear(64, 10),  # 8: 10 outputs
        )


@torch.no_grad()
def two_of_four(model: nn.Module) -> Tensors:
    """Mask every linear weight 2:4."""
    masks = {}
    for name, p in maskable(model).items():
        if p.dim() == 2:
            masks[name] = Pattern(2, 4).best(p.abs(), p.numel() // 2)
            p.mul_(masks[name])
    return masks


def clock(times: dict[int, tuple[float, float]]) -> Callable[..., tuple[float, float]]:
    """Return a timer that gives layers with so many inputs these times."""

    def timer(
        dense: Any, sparse: Any, inputs: Sequence[Tensor], repeats: int
    ) -> tuple[float, float]:
        assert dense.in_features == sparse.in_features == inputs[0].shape[-1]
        assert repeats == 5
        return times[dense.out_features]

    return timer


class Converter:
    """Stands in for the conversion: returns a copy of the weight, and notes its shape."""

    def __init__(self, error: float = 0.0) -> None:
        self.seen: list[Tensor] = []
        self._error = error

    def __call__(self, weight: Tensor) -> Tensor:
        self.seen.append(weight)
        return weight.clone() + self._error


def converted(
    model: nn.Module, masks: Tensors, convert: Converter, **settings: Any
) -> SemiStructuredReport:
    times = clock({96: (2.0, 1.0), 64: (1.0, 1.5)})
    x = random(5, 3, 4, 4)
    return to_semi_structured(model, masks, x, convert=convert, timer=times, **settings)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_layers_that_are_faster_are_converted_in_a_copy_in_half_precision(
    dtype: torch.dtype,
) -> None:
    model, convert = net(), Converter()
    masks = two_of_four(model)
    before = copy.deepcopy(model.state_dict())
    report = converted(model, masks, convert, dtype=dtype)
    assert [(c.name, c.dense_ms, c.sparse_ms, c.chosen) for c in report.layers] == [
        ("2.weight", 2.0, 1.0, True),
        ("6.weight", 1.0, 1.5, False),
    ]
    assert [c.density for c in report.layers] == [0.5, 0.5]
    assert [c.difference for c in report.layers] == [0.0, 0.0]
    assert {w.dtype for w in convert.seen} == {dtype}
    assert {p.dtype for p in report.model.parameters()} == {dtype}
    assert not any(m.training for m in report.model.modules())
    assert_same_bits(model.state_dict(), before)
    x = random(5, 3, 4, 4)
    expected, actual = model(x), report.model(x.to(dtype)).float()
    assert (expected - actual).abs().max() < 16 * torch.finfo(dtype).eps * expected.abs().max()


def test_layers_that_cannot_use_the_kernels_are_named_with_the_reason() -> None:
    model = net()
    report = converted(model, two_of_four(model), Converter())
    assert report.unsuited == {
        "4.weight": "64 outputs and 96 inputs are not multiples of 32 and 64, as the kernels need",
        "8.weight": "10 outputs and 64 inputs are not multiples of 32 and 64, as the kernels need",
    }
    with torch.no_grad():
        model[6].weight[3, 4:8] = 1.0  # four of four
        model[6].weight[5, 1:4] = 1.0  # three or four of four
    report = converted(model, {}, Converter())
    reason = "2 of 1024 groups of four inputs have more than two weights"
    assert report.unsuited["6.weight"] == reason
    assert [c.name for c in report.layers] == ["2.weight"]


def test_a_layer_is_judged_by_its_mask_and_without_one_by_its_weights() -> None:
    model = net()
    masks = two_of_four(model)
    masks["2.weight"] = torch.ones_like(masks["2.weight"])  # more than its weights use
    report = converted(model, masks, Converter())
    assert [c.name for c in report.layers] == ["6.weight"]
    del masks["2.weight"]
    report = converted(model, masks, Converter())
    assert [c.name for c in report.layers] == ["2.weight", "6.weight"]


def test_two_of_four_must_hold_in_aligned_groups_of_inputs() -> None:
    layer = nn.Linear(64, 32)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, 2:6] = 1.0  # four in a row, but two in each group
    report = to_semi_structured(
        nn.Sequential(layer), {}, random(2, 64), convert=Converter(), repeats=1
    )
    assert [c.name for c in report.layers] == ["0.weight"]
    with torch.no_grad():
        layer.weight[:, 6] = 1.0
    with pytest.raises(SparsityError, match="32 of 512 groups of four inputs have more than two"):
        to_semi_structured(nn.Sequential(layer), {}, random(2, 64), convert=Converter())


def test_a_derived_layer_or_one_with_hooks_stays_dense() -> None:
    class Twice(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return 2 * super().forward(input)

    model = nn.Sequential(Twice(64, 64), nn.Linear(64, 64), nn.Linear(64, 64))
    two_of_four(model)
    model[1].register_forward_hook(lambda *_: None)
    report = to_semi_structured(model, {}, random(2, 64), convert=Converter(), repeats=1)
    assert [c.name for c in report.layers] == ["2.weight"]
    assert report.unsuited["0.weight"] == "Twice with hooks or of a derived class"
    assert report.unsuited["1.weight"] == "Linear with hooks or of a derived class"


def test_a_network_without_suited_layers_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        SparsityError,
        match=r"No linear layer can use 2:4 kernels; 2.weight: 1536 of 1536 groups of four inputs "
        r"have more than two weights; 4.weight: .* Train with pattern=2:4 and density=0.5 \(conv",
    ):
        converted(net(), {}, Converter())


def test_a_layer_that_would_compute_something_else_is_refused() -> None:
    model = net()
    masks = two_of_four(model)
    with pytest.raises(SparsityError, match=r"2.weight would compute something else .* the dense"):
        converted(model, masks, Converter(error=0.01))
    with pytest.raises(SparsityError, match=r"2.weight would compute something else .* by nan"):
        converted(model, masks, Converter(error=torch.nan))


def test_a_device_without_the_kernels_is_refused_with_what_they_need() -> None:
    model = net()
    with pytest.raises(
        SparsityError,
        match=r"2:4 kernels need an NVIDIA GPU of compute capability 8.0 or newer; this network is "
        r"on cpu \(PyTorch: .*\). Move it to such a GPU",
    ):
        to_semi_structured(model, two_of_four(model), random(5, 3, 4, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repeats": 0}, "repeats must be at least 1, not 0"),
        ({"dtype": torch.float32}, "dtype is torch.float32, but must be torch.float16 or"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SparsityError, match=message):
        converted(net(), {}, Converter(), **settings)


def test_masks_that_do_not_fit_are_refused() -> None:
    model = net()
    with pytest.raises(SparsityError, match="Unknown weight"):
        converted(model, {"2.wait": torch.ones(96, 64).bool()}, Converter())
    with pytest.raises(SparsityError, match=r"2.weight has weights off its mask"):
        converted(model, {"2.weight": torch.zeros(96, 64).bool()}, Converter())
