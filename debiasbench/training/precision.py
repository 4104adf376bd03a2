"""How a device computes: precision, compilation, determinism and memory layout."""

from __future__ import annotations

import inspect
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from debiasbench.common.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Compile = Literal["off", "on", "graphs"]

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
MODES = {"on": "default", "graphs": "reduce-overhead"}


@dataclass(frozen=True)
class Arithmetic:
    """How a run computes; its record says so.

    `precision`: of matrix products and convolutions; weights, their sums and the loss are float32
    in each. `compile`: whether networks are compiled, and replayed as graphs of the device.
    `channels_last`: whether images and their filters lie in memory with the channels last.
    """

    precision: Precision
    compile: Compile = "off"
    deterministic: bool = False
    channels_last: bool = False

    @classmethod
    def on(
        cls,
        device: torch.device,
        precision: Precision | Literal["auto"] = "auto",
        compile: Compile = "off",  # noqa: A002 - what torch calls it
        deterministic: bool = False,
    ) -> Arithmetic:
        """Return what `device` is to do; "auto" is bf16 on an accelerator that has it, else fp32.

        Raises `OptionError` for what it cannot do.
        """
        accelerated = device.type != "cpu"
        if precision == "auto":
            precision = "bf16" if accelerated and _has(device, "bf16") else "fp32"
        if precision == "tf32" and not (accelerated and _has(device, "tf32")):
            raise OptionError(f"--precision tf32: {device} has no TF32. Use fp32")
        if precision in HALF and not torch.amp.is_autocast_available(device.type):
            raise OptionError(f"--precision {precision}: not on {device}. Use fp32")
        return cls(precision, compile, deterministic, channels_last=accelerated)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set torch's switches, and put them back afterwards."""
        backends: Any = torch.backends
        products, convolutions = backends.cuda.matmul, backends.cudnn.conv
        before = (
            products.fp32_precision,
            convolutions.fp32_precision,
            backends.cudnn.benchmark,
            backends.cudnn.deterministic,
        )
        strict = torch.are_deterministic_algorithms_enabled()
        warn = torch.is_deterministic_algorithms_warn_only_enabled()
        fp32 = "tf32" if self.precision == "tf32" else "ieee"
        try:
            products.fp32_precision = convolutions.fp32_precision = fp32
            backends.cudnn.benchmark = not self.deterministic
            backends.cudnn.deterministic = self.deterministic
            if self.deterministic:
                torch.use_deterministic_algorithms(True)
            yield
        finally:
            (
                products.fp32_precision,
                convolutions.fp32_precision,
                backends.cudnn.benchmark,
                backends.cudnn.deterministic,
            ) = before
            torch.use_deterministic_algorithms(strict, warn_only=warn)

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Compute what comes within in half precision, where it is safe and asked for."""
        if self.precision not in HALF:
            return nullcontext()
        return torch.autocast(device.type, HALF[self.precision])

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Return what keeps fp16 gradients from vanishing; it does nothing in other precisions."""
        return torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")

    def lay_out(self, module: nn.Module) -> None:
        """Put a module's filters where this wants them."""
        for p in module.parameters() if self.channels_last else ():
            if p.dim() == 4:
                p.data = p.data.contiguous(memory_format=torch.channels_last)

    def laid_out(self, x: Tensor) -> Tensor:
        """Return inputs (B, *input) where this wants them."""
        images = self.channels_last and x.dim() == 4
        return x.contiguous(memory_format=torch.channels_last) if images else x

    @contextmanager
    def compiled(self, module: nn.Module) -> Iterator[None]:
        """Compile the networks that a module holds, if asked for, while this lasts."""
        if self.compile == "off":
            yield
            return
        networks = list(module.children())
        for network in networks:  # a graph for each size: equal runs then have equal ones
            network.compile(mode=MODES[self.compile], dynamic=False)
        try:
            yield
        finally:
            for network in networks:
                network._compiled_call_impl = None
            torch.compiler.reset()  # else the next network of this class finds its places taken

    def counting(self) -> AbstractContextManager[object]:
        """Let operations be counted one by one: a compiled network shows none."""
        if self.compile == "off":
            return nullcontext()
        stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
        return stance


def _has(device: torch.device, what: str) -> bool:
    """Ask an accelerator whether it computes in bf16 or tf32 itself."""
    supported = getattr(torch.get_device_module(device), f"is_{what}_supported", None)
    if supported is None:
        return what == "tf32"  # to ask for it where it is not does no harm
    emulates = "including_emulation" in inspect.signature(supported).parameters
    return bool(supported(including_emulation=False) if emulates else supported())
