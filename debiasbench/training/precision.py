"""`Numerics`: precision, compilation, determinism and memory layout of computations."""

from __future__ import annotations

import inspect
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from debiasbench.common.errors import OptionError
from debiasbench.core.inputs import mapped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from debiasbench.core.inputs import Inputs
    from debiasbench.core.settings import AnyPrecision, Precision

Compile = Literal["off", "on"]

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Numerics:
    """How a stage computes; stored in the record of its run.

    `precision`: of matrix products and convolutions; weights, sums and the loss are always
    float32. `compile`: whether networks are compiled. `deterministic`: whether only deterministic
    algorithms are used. `channels_last`: whether images and filters are stored with the channels
    last. `graphs`: whether steps are captured and replayed as graphs of the device.
    """

    precision: Precision
    compile: Compile = "off"
    deterministic: bool = False
    channels_last: bool = False
    graphs: bool = False

    @classmethod
    def on(
        cls,
        device: torch.device,
        precision: AnyPrecision = "auto",
        compile: Compile = "off",  # noqa: A002 - what torch calls it
        deterministic: bool = False,
        graphs: bool = False,
    ) -> Numerics:
        """Return the numerics of a device. `graphs`: whether it captures and replays graphs.

        Precision "auto" is bf16 on an accelerator that supports it, otherwise fp32. Raises
        `OptionError` for a precision that the device does not support.
        """
        accelerated = device.type != "cpu"
        if precision == "auto":
            precision = "bf16" if accelerated and _has(device, "bf16") else "fp32"
        if precision == "tf32" and not (accelerated and _has(device, "tf32")):
            raise OptionError(f"--precision tf32: {device} does not support TF32. Use fp32")
        if precision in HALF and not torch.amp.is_autocast_available(device.type):
            raise OptionError(f"--precision {precision}: {device} does not support it. Use fp32")
        graphs = graphs and precision != "fp16"  # its loss scaler decides on the host
        return cls(precision, compile, deterministic, channels_last=accelerated, graphs=graphs)

    @contextmanager
    def applied(self, *, tune: bool = True) -> Iterator[None]:
        """Apply these numerics to torch's settings inside the context; restore them afterwards.

        `tune`: whether convolutions of new shapes are tried with several algorithms. It costs time
        in every thread, which pays for training only.
        """
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
        filling: Any = torch.utils.deterministic
        fills = filling.fill_uninitialized_memory
        fp32 = "tf32" if self.precision == "tf32" else "ieee"
        try:
            products.fp32_precision = convolutions.fp32_precision = fp32
            backends.cudnn.benchmark = tune and not self.deterministic
            backends.cudnn.deterministic = self.deterministic
            if self.deterministic:
                torch.use_deterministic_algorithms(True)
                filling.fill_uninitialized_memory = False  # it costs time, and nothing reads it
            yield
        finally:
            (
                products.fp32_precision,
                convolutions.fp32_precision,
                backends.cudnn.benchmark,
                backends.cudnn.deterministic,
            ) = before
            torch.use_deterministic_algorithms(strict, warn_only=warn)
            filling.fill_uninitialized_memory = fills

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Compute in half precision inside the context, if this precision is one."""
        if self.precision not in HALF:
            return nullcontext()
        return torch.autocast(device.type, HALF[self.precision])

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Return the loss scaler of fp16; it does nothing in other precisions."""
        return torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")

    def lay_out(self, module: nn.Module) -> None:
        """Store a module's filters in the layout of this device."""
        for p in module.parameters() if self.channels_last else ():
            if p.dim() == 4:
                p.data = p.data.contiguous(memory_format=torch.channels_last)

    def laid_out(self, x: Inputs) -> Inputs:
        """Return inputs (B, ...) in the layout of this device."""
        return mapped(_channels_last, x) if self.channels_last else x

    @contextmanager
    def compiled(self, module: nn.Module) -> Iterator[None]:
        """Compile the networks of a module inside the context, unless `compile` is "off"."""
        if self.compile == "off":
            yield
            return
        networks = list(module.children())
        for network in networks:  # one graph per batch size: equal runs then have equal graphs
            network.compile(dynamic=False)
        try:
            yield
        finally:
            for network in networks:
                network._compiled_call_impl = None
            torch.compiler.reset()  # otherwise the next network of this class reuses its graphs

    def counting(self) -> AbstractContextManager[object]:
        """Run without compilation inside the context, so that operations can be counted."""
        if self.compile == "off":
            return nullcontext()
        stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
        return stance


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _has(device: torch.device, precision: Literal["bf16", "tf32"]) -> bool:
    """Return whether an accelerator computes in bf16 or tf32 without emulation."""
    supported = getattr(torch.get_device_module(device), f"is_{precision}_supported", None)
    if supported is None:
        return precision == "tf32"  # setting tf32 on a device without it has no effect
    emulates = "including_emulation" in inspect.signature(supported).parameters
    return bool(supported(including_emulation=False) if emulates else supported())
