"""Linear layers and convolutions that multiply only with the weights they have, where that pays.

For inference: masks are fixed, and weights get no gradients. Whether compressed sparse rows (CSR)
are faster depends on density, layer, batch size, machine and number of threads, so it is measured.

Speed-up over the dense layer by density, on one thread of a busy AMD EPYC (torch 2.15, float32),
two runs, of which the smaller number:

                                              0.1    0.05   0.01   0.0005
    linear, 2048 to 2048, batch size 1        1.4    2.2    3.8    4.9
    the same, batch size 32                   2.2    7.5    16     22
    3x3, 64 to 64 channels of 56x56, 16       0.3    0.3    0.7    1.7
    3x3, 512 to 512 channels of 7x7, 16       0.7    1.7    3.7    7.7
"""

from __future__ import annotations

import copy
import time
import warnings
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.sparsity.errors import SparsityError, unknown
from debiasbench.sparsity.guards import check_mask
from debiasbench.sparsity.params import maskable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

# To pick places out of patches costs up to twice as much, for each, as to copy all there are.
WORTH_PICKING = 0.5  # fraction of a patch that some filter reads


@dataclass(frozen=True)
class Choice:
    """What became of one layer, and why. Times are medians, for all the example in a pass."""

    name: str  # of its weight
    density: float  # fraction of weights kept, in [0, 1]
    dense_ms: float
    csr_ms: float
    chosen: bool  # whether it multiplies in CSR now


@dataclass(frozen=True)
class CsrReport:
    """A network for inference, and how each of its candidates for CSR was decided."""

    model: nn.Module
    layers: tuple[Choice, ...]


def is_faster(dense_ms: float, csr_ms: float) -> bool:
    """Choose CSR just where it took less time."""
    return csr_ms < dense_ms


@torch.no_grad()
def to_csr(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    example: Tensor,
    *,
    repeats: int = 5,
    choose: Callable[[float, float], bool] = is_faster,
) -> CsrReport:
    """Return a copy of `model`, in eval mode, whose layers are in CSR where `choose` says so.

    Both compute the same but for rounding. Candidates are `nn.Linear` and ungrouped, zero-padded
    `nn.Conv2d` that a pass of `example` calls: not of a derived class, without hooks, and of a
    type and on a device for which PyTorch has CSR products (on a CPU no half precision).

    `model`: left as it is. `masks`: bool, by parameter name; what has none is dense, and a
    candidate all the same. `example`: (B, *input), of the batch size that matters. `repeats`: how
    often a layer and its CSR are timed, in turns. `choose`: called with their milliseconds.

    The state dict of the result has `crow`, `col`, `values` and, for some convolutions, `read` in
    place of a `weight` in CSR. It fits networks converted with as many weights in each layer and
    the same choices.

    Raises `SparsityError` for masks that do not fit `model`, and for `repeats` below 1.
    """
    if repeats < 1:
        raise SparsityError(f"repeats must be at least 1, not {repeats}")
    converted = copy.deepcopy(model).eval().requires_grad_(False)
    mask_of = _masks_by_weight(converted, masks)
    candidates = {
        f"{prefix}.weight".removeprefix("."): layer
        for prefix, layer in converted.named_modules()
        if _is_candidate(layer)
    }
    choices: list[Choice] = []
    replacements: dict[nn.Module, nn.Module] = {}
    for name, inputs in _inputs(converted, candidates, example).items():
        layer = candidates[name]
        mask = mask_of.get(layer.weight)
        if mask is None:
            mask = torch.ones_like(layer.weight, dtype=torch.bool)
        sparse = CsrLinear(layer, mask) if isinstance(layer, nn.Linear) else CsrConv2d(layer, mask)
        dense_ms, csr_ms = _milliseconds(layer, sparse, inputs, repeats)
        choice = Choice(
            name=name,
            density=int(mask.sum()) / mask.numel(),
            dense_ms=dense_ms,
            csr_ms=csr_ms,
            chosen=choose(dense_ms, csr_ms),
        )
        choices.append(choice)
        if choice.chosen:
            replacements[layer] = sparse
    return CsrReport(_replace(converted, replacements), tuple(choices))


class _CsrLayer(nn.Module):
    """A layer that multiplies its weight, (O, I), with features in rows and samples in columns.

    In this layout the product is four to eight times faster than `F.linear(x, weight)` in CSR.
    """

    crow: Tensor  # (O + 1,) where the weights of a row begin in the other two
    col: Tensor  # (K,) the column of each weight
    values: Tensor  # (K,)
    bias: nn.Parameter | None  # (O,)

    def __init__(self, layer: nn.Module, weight: Tensor, mask: Tensor) -> None:
        super().__init__()
        # MKL is faster with 32 bits
        index = torch.int32 if mask.numel() <= torch.iinfo(torch.int32).max else torch.int64
        self.shape = mask.shape
        self.register_buffer("crow", F.pad(mask.sum(1).cumsum(0), (1, 0)).to(index))
        self.register_buffer("col", mask.nonzero()[:, 1].to(index))
        self.register_buffer("values", weight.detach()[mask])
        self.register_parameter("bias", layer._parameters["bias"])
        self._matrix: Tensor | None = None  # made of the buffers when first needed
        self.eval()

    def multiply(self, columns: Tensor) -> Tensor:
        """Return weight x columns + bias: (I, N) -> (O, N)."""
        if self.training and torch.is_grad_enabled():
            raise SparsityError(
                "Layers in CSR cannot be trained: call eval() on the network, or train the one it "
                "was made of and convert that again"
            )
        if self._matrix is None:
            self._matrix = self._build()
        product = self._matrix @ columns
        return product if self.bias is None else product + self.bias[:, None]

    def _build(self) -> Tensor:
        index = _index_type(self.values)
        if index is None:
            raise SparsityError(
                f"PyTorch has no CSR product for {self.values.dtype} on {self.values.device}: "
                "convert the network to another type or device"
            )
        if self.crow.dtype == torch.int64:  # too many weights for less
            index = torch.int64
        try:
            return _csr_matrix(self.crow.to(index), self.col.to(index), self.values, self.shape)
        except RuntimeError as error:
            raise SparsityError(f"crow, col and values are no CSR matrix: {error}") from error

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._matrix = None  # the buffers move to another type or device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        self._matrix = None
        super()._load_from_state_dict(*args)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_matrix": None}  # PyTorch cannot copy it

    def extra_repr(self) -> str:
        """Say what `print` shows of the layer."""
        return f"{tuple(self.shape)}, weights={len(self.values)}, bias={self.bias is not None}"


class CsrLinear(_CsrLayer):
    """An `nn.Linear` under a mask of its weight, for inference."""

    def __init__(self, layer: nn.Linear, mask: Tensor) -> None:
        super().__init__(layer, layer.weight, mask)
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as PyTorch names it
        """(..., in_features) -> (..., out_features)."""
        product = self.multiply(input.reshape(-1, self.in_features).T)
        # contiguous, as what `nn.Linear` returns and some code that follows it relies on
        return product.T.contiguous().view(*input.shape[:-1], self.out_features)


class CsrConv2d(_CsrLayer):
    """An ungrouped, zero-padded `nn.Conv2d` under a mask of its weight, for inference.

    It copies the patches of the input into columns, but only those places in a patch that a filter
    reads where they are few: at low density that is most of the work.
    """

    read: Tensor | None  # (3, I): channel, row and column of the places; None: all

    def __init__(self, layer: nn.Conv2d, mask: Tensor) -> None:
        read = mask.any(0)  # (C, *kernel_size)
        if int(read.sum()) >= WORTH_PICKING * read.numel():
            read = torch.ones_like(read)
        super().__init__(layer, layer.weight[:, read], mask[:, read])
        self.register_buffer("read", None if read.all() else read.nonzero().T)
        self.kernel_size, self.stride = layer.kernel_size, layer.stride
        self.dilation = layer.dilation
        self.padding = _padding(layer)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as PyTorch names it
        """(B, C, H, W) -> (B, O, H', W'); as in `nn.Conv2d`, B may be missing."""
        if input.ndim == 3:
            return self.forward(input[None])[0]
        # views, and one copy that puts features first: half the time of F.unfold and a transpose
        windows = F.pad(input, self.padding) if any(self.padding) else input
        for i, (size, step, gap) in enumerate(
            zip(self.kernel_size, self.stride, self.dilation, strict=True)
        ):
            windows = windows.unfold(2 + i, gap * (size - 1) + 1, step)[..., ::gap]
        patches = windows.permute(1, 4, 5, 0, 2, 3)  # (C, *kernel_size, B, H', W')
        columns = patches.flatten(0, 2) if self.read is None else patches[tuple(self.read)]
        product = self.multiply(columns.flatten(1))  # (O, B * H' * W')
        return product.view(len(product), *columns.shape[1:]).transpose(0, 1).contiguous()


def _csr_matrix(crow: Tensor, col: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    with warnings.catch_warnings():
        # said once in a process; whether CSR pays here is measured, so the state is no surprise
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        # torch 2.11, though they are asked for below
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly", UserWarning)
        return torch.sparse_csr_tensor(crow, col, values, size=shape, check_invariants=True)


def _padding(layer: nn.Conv2d) -> list[int]:
    """Return zeros to add left, right, above and below, as `F.pad` takes them."""
    sides: list[int] = []
    for i in (1, 0):
        if layer.padding == "same":
            both = layer.dilation[i] * (layer.kernel_size[i] - 1)
            sides += [both // 2, both - both // 2]
        else:
            sides += [0, 0] if layer.padding == "valid" else [int(layer.padding[i])] * 2
    return sides


def _index_type(like: Tensor) -> torch.dtype | None:
    """Return the smallest indices with which CSR products of this type and device work, if any."""
    one = torch.ones(1, 1, dtype=like.dtype, device=like.device)
    for index in (torch.int32, torch.int64):
        crow = torch.tensor([0, 1], dtype=index, device=like.device)
        try:
            _csr_matrix(crow, crow[:1], one[0], one.shape) @ one
        except RuntimeError:  # as PyTorch says in several ways that it cannot
            continue
        return index
    return None


def _masks_by_weight(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[Tensor, Tensor]:
    weights = maskable(model)
    found: dict[Tensor, Tensor] = {}
    for name, mask in masks.items():
        if name not in weights:
            raise unknown("weight", name, weights)
        check_mask(name, weights[name], mask)
        found[weights[name]] = mask.to(weights[name].device)
    return found


def _is_candidate(layer: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    # of a derived class (as with a parametrisation), or with hooks, a layer may do more
    if type(layer) not in {nn.Linear, nn.Conv2d} or "forward" in vars(layer):
        return False
    if layer._forward_pre_hooks or layer._forward_hooks:
        return False
    if isinstance(layer, nn.Conv2d) and (layer.groups > 1 or layer.padding_mode != "zeros"):
        return False
    weight = layer.get_parameter("weight")
    return weight.numel() > 0 and _index_type(weight) is not None


def _inputs(
    model: nn.Module, layers: Mapping[str, nn.Module], example: Tensor
) -> dict[str, list[Tensor]]:
    """Return what a pass calls each layer with, in the order of `layers`; the uncalled not."""
    inputs: dict[str, list[Tensor]] = {name: [] for name in layers}

    def record(name: str, layer: nn.Module) -> None:
        forward = layer.forward

        def recording(*args: Tensor, **kwargs: Tensor) -> Tensor:
            inputs[name] += [*args, *kwargs.values()]
            output: Tensor = forward(*args, **kwargs)
            return output

        vars(layer)["forward"] = recording

    # not by hooks: they make nn.TransformerEncoderLayer call layers whose weights it reads else
    for name, layer in layers.items():
        record(name, layer)
    model(example)
    for layer in layers.values():
        del vars(layer)["forward"]
    return {name: found for name, found in inputs.items() if found}


def _milliseconds(
    dense: nn.Module, sparse: nn.Module, inputs: Sequence[Tensor], repeats: int
) -> tuple[float, float]:
    """Return the median time of both layers for all inputs, taken in turns."""
    times: dict[nn.Module, list[float]] = {dense: [], sparse: []}
    device = inputs[0].device
    for _ in range(1 + repeats):
        for layer, taken in times.items():
            start = time.perf_counter()
            for x in inputs:
                layer(x)
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            taken.append(1000 * (time.perf_counter() - start))
    # the first of each was to warm up
    return median(times[dense][1:]), median(times[sparse][1:])


def _replace(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    for parent in list(model.modules()):
        for own, child in list(parent._modules.items()):  # a shared layer under all its names
            if child is not None and child in replacements:
                setattr(parent, own, replacements[child])
    return replacements.get(model, model)
