"""The device that a process trains on: its lookup by name, its description and its memory."""

from __future__ import annotations

import os
import platform
import resource
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from debiasbench.common.errors import OptionError
from debiasbench.common.processes import local_rank, started_together
from debiasbench.common.wording import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator


def resolve_device(name: str) -> torch.device:
    """Return the device with a name; "auto" is an accelerator if there is one, otherwise the CPU.

    Raises `OptionError` for a device that is not available.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return _of_this_process(accelerator or torch.device("cpu"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(
            f"--device {shortened(name)}: no device has this name. Use cpu, cuda, cuda:1 or mps. "
            "Use --device auto for an available device"
        ) from error
    try:
        device = _of_this_process(device)
        torch.zeros(1, device=device).item()  # "meta" makes tensors, but computes nothing
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = shortened(str(error).partition("\n")[0])
        raise OptionError(
            f"--device {name} is not available ({reason}). Use --device auto for an available "
            "device"
        ) from error
    return device


def environments(name: str) -> list[dict[str, str]]:
    """Return for each GPU that a device name leaves open what lets a process see that GPU alone.

    Processes of one command take them in turn. The list is empty if the name is that of one device,
    or if there is at most one GPU.
    """
    device = resolve_device(name)
    if device.type != "cuda" or device.index is not None or torch.cuda.device_count() < 2:
        return []
    own = os.environ.get("CUDA_VISIBLE_DEVICES")
    indices = map(str, range(torch.cuda.device_count())) if own is None else own.split(",")
    return [{"CUDA_VISIBLE_DEVICES": index} for index in indices]


def _of_this_process(device: torch.device) -> torch.device:
    """Return the device of this process, if `torchrun` started several on the machine."""
    if device.type == "cpu" or device.index is not None or not started_together():
        return device
    own = torch.device(device.type, local_rank())
    torch.accelerator.set_device_index(own)
    return own


def prepare_determinism(device: torch.device) -> None:
    """Set the environment variable that deterministic cuBLAS needs before its first use."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def hardware(device: torch.device) -> str:
    """Return the name of a device; for a CPU also the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_name()}, {torch.get_num_threads()} threads"


@contextmanager
def computing_threads(number: int | None) -> Iterator[None]:
    """Inside the context, compute with `number` threads of the CPU; None changes nothing."""
    before = torch.get_num_threads()
    if number is None or number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes: allocated on a GPU, or resident size of a CPU process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from now on, if the device supports it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def capturing() -> bool:
    """Return whether this thread is capturing a graph of the device."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def free_memory(device: torch.device) -> tuple[int, int] | None:
    """Return the free and the total bytes of an accelerator, or None if they are unknown."""
    query = getattr(torch.get_device_module(device), "mem_get_info", None)
    return None if query is None else query(device)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
