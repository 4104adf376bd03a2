"""Linear layers and convolutions in compressed sparse rows (CSR), for inference."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.sparsity.errors import SparsityError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

# Picking places out of patches costs up to twice as much, per place, as copying all of them.
WORTH_PICKING = 0.5  # fraction of a patch that some filter reads


class CsrLayer(nn.Module):
    """A layer that multiplies its weight (O, I) with features in rows and samples in columns.

    In this layout the product is four to eight times faster than `F.linear(x, weight)` in CSR.
    """

    crow: Tensor  # (O + 1,) where the weights of each row begin in the other two
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
        self._matrix: Tensor | None = None  # made from the buffers when first needed
        self.eval()

    def multiply(self, columns: Tensor) -> Tensor:
        """Return weight @ columns + bias: (I, N) -> (O, N)."""
        if self.training and torch.is_grad_enabled():
            raise SparsityError(
                "Layers in CSR cannot be trained: call eval() on the network, or train the "
                "original network and convert it again"
            )
        if self._matrix is None:
            self._matrix = self._build()
        product = self._matrix @ columns
        return product if self.bias is None else product + self.bias[:, None]

    def _build(self) -> Tensor:
        index = index_type(self.values)
        if index is None:
            raise SparsityError(
                f"PyTorch has no CSR product for {self.values.dtype} on {self.values.device}: "
                "convert the network to another type or device"
            )
        if self.crow.dtype == torch.int64:  # too many weights for 32 bits
            index = torch.int64
        try:
            return _csr_matrix(self.crow.to(index), self.col.to(index), self.values, self.shape)
        except RuntimeError as error:
            raise SparsityError(
                f"crow, col and values are not a valid CSR matrix: {error}. Load the state dict "
                "of a network in CSR"
            ) from error

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
        """Return what `print` shows of the layer."""
        return f"{tuple(self.shape)}, weights={len(self.values)}, bias={self.bias is not None}"


class CsrLinear(CsrLayer):
    """An `nn.Linear` whose weight is masked, for inference."""

    def __init__(self, layer: nn.Linear, mask: Tensor) -> None:
        super().__init__(layer, layer.weight, mask)
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as PyTorch names it
        """(..., in_features) -> (..., out_features)."""
        product = self.multiply(input.reshape(-1, self.in_features).T)
        # contiguous like the output of `nn.Linear`, on which later code may rely
        return product.T.contiguous().view(*input.shape[:-1], self.out_features)


class CsrConv2d(CsrLayer):
    """An ungrouped, zero-padded `nn.Conv2d` whose weight is masked, for inference.

    It copies the patches of the input into columns. If filters read only few places of a patch, it
    copies only those: at low density this copy is most of the work.
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
        # views, then one copy that puts features first: half the time of F.unfold and a transpose
        windows = F.pad(input, self.padding) if any(self.padding) else input
        for i, (size, step, gap) in enumerate(
            zip(self.kernel_size, self.stride, self.dilation, strict=True)
        ):
            windows = windows.unfold(2 + i, gap * (size - 1) + 1, step)[..., ::gap]
        patches = windows.permute(1, 4, 5, 0, 2, 3)  # (C, *kernel_size, B, H', W')
        columns = patches.flatten(0, 2) if self.read is None else patches[tuple(self.read)]
        product = self.multiply(columns.flatten(1))  # (O, B * H' * W')
        return product.view(len(product), *columns.shape[1:]).transpose(0, 1).contiguous()


def index_type(like: Tensor) -> torch.dtype | None:
    """Return the smallest index type with which CSR products work for this type and device.

    None if they do not work at all.
    """
    one = torch.ones(1, 1, dtype=like.dtype, device=like.device)
    for index in (torch.int32, torch.int64):
        crow = torch.tensor([0, 1], dtype=index, device=like.device)
        try:
            _csr_matrix(crow, crow[:1], one[0], one.shape) @ one
        except RuntimeError:  # PyTorch has several messages for an unsupported product
            continue
        return index
    return None


def _csr_matrix(crow: Tensor, col: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    with warnings.catch_warnings():
        # `to_csr` measures whether CSR is faster, so its beta state is not a surprise
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        # torch 2.11 warns although the call below asks for the checks
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly", UserWarning)
        return torch.sparse_csr_tensor(crow, col, values, size=shape, check_invariants=True)


def _padding(layer: nn.Conv2d) -> list[int]:
    """Return the zeros to add left, right, above and below, in the order of `F.pad`."""
    sides: list[int] = []
    for i in (1, 0):
        if layer.padding == "same":
            both = layer.dilation[i] * (layer.kernel_size[i] - 1)
            sides += [both // 2, both - both // 2]
        else:
            sides += [0, 0] if layer.padding == "valid" else [int(layer.padding[i])] * 2
    return sides
