"""The identity of a stage: stages with equal identities have equal results.

A stage is shared between runs only if everything that decides it is known. This holds if its
objective and components are builtin, all modules of its network are from known packages and have
plain attributes, there is no hook, and torch's settings are the usual ones. All other stages can
only be used by their own run.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn, overrides
from torch.nn.modules import module as torch_module
from torch.optim import optimizer as torch_optimizer
from torch.utils import _python_dispatch as dispatch

from debiasbench.core.batches import Batches
from debiasbench.core.objective import CrossEntropy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from debiasbench.core.component import ComponentLike
    from debiasbench.core.stage import Stage

KNOWN = {"torch", "torchvision", "timm", "debiasbench"}
"""Packages whose code or version is in a record, so that the name of a class is sufficient."""

_STRUCTURE = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
"""Attributes of a module that its state dict contains."""


@dataclass(frozen=True)
class Identity:
    """Everything that decides a stage, except the data, the code and the machine of its run.

    `content`: plain values. `shared`: whether the content is complete, so that a stage of another
    run with equal content is the same stage.
    """

    content: Mapping[str, object]
    shared: bool


class _Unknown(Exception):  # noqa: N818 - it never leaves this file
    """Something in a stage has an unknown effect on its result."""


def identity(stage: Stage) -> Identity:
    """Return the identity of a stage in its current state; changes nothing."""
    objective = stage.objective
    content: dict[str, object] = {
        "objective": f"{type(objective).__module__}.{type(objective).__qualname__}",
        "modules": repr(objective),
        "state": _digest(objective.state_dict()),
        "split": stage.view.split,
        "labels": _digest(stage.view.labels),
        "training": asdict(stage.settings),
        "seed": stage.seed,
        "steps": stage.steps,
        "drawn": _digest({"weights": stage.batches.weights, "subset": stage.batches.subset}),
        "extra": _digest(stage.extra),
        "optimizer": _optimizer(stage),
        "masks": _digest(stage.masks),
        "components": [_component(component) for component in stage.components],
    }
    try:
        if type(objective) is not CrossEntropy:
            raise _Unknown
        if not usual_surroundings():
            raise _Unknown
        if stage.each_epoch is not None or type(stage.batches) is not Batches or stage.beside:
            raise _Unknown
        _check_known(stage.components)
        _check_hooks(objective)
        content["network"] = list(_modules(objective))
        content["parameters"] = list(_parameters(objective))
    except _Unknown:
        return Identity(content, shared=False)
    return Identity(content, shared=True)


def usual_surroundings() -> bool:
    """Return whether torch's settings, in which a method calls `lab.train`, are the usual ones."""
    devices = ["cpu"]
    accelerator = torch.accelerator.current_accelerator()
    if torch.accelerator.is_available() and accelerator is not None:
        devices.append(accelerator.type)
    backends: Any = torch.backends
    modes: Any = overrides
    return (
        torch.is_grad_enabled()
        and not torch.is_inference_mode_enabled()
        and not any(torch.is_autocast_enabled(device) for device in devices)
        and torch.get_default_dtype() == torch.float32
        # of the CPU; a stage sets those of CUDA
        and backends.mkldnn.matmul.fp32_precision in {"none", "ieee"}
        and not modes._get_current_function_mode_stack()
        and not dispatch._get_current_dispatch_mode_stack()
    )


def _check_known(components: Any) -> None:
    for component in components:
        known = type(component).__module__.partition(".")[0] == "debiasbench"
        replaced = any(callable(value) for value in vars(component).values())
        if not known or replaced or getattr(component, "identity", None) is None:
            raise _Unknown


def _component(component: ComponentLike) -> str:
    return getattr(component, "identity", None) or type(component).__qualname__


def _optimizer(stage: Stage) -> object:
    """Return what decides how the optimizer begins."""
    state = stage.optimizer
    if state is None:
        return None
    return [state.kind, {name: _digest(_tensors(own)) for name, own in state.values.items()}]


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in state.items() if value is not None}


def _check_hooks(objective: nn.Module) -> None:
    """Raise `_Unknown` for hooks, global or of modules and parameters, and replaced `forward`s."""
    for library in (torch_module, torch_optimizer):
        for name, hooks in vars(library).items():
            if name.startswith("_global_") and "hooks" in name and hooks:
                raise _Unknown
    for module in objective.modules():
        attributes = vars(module)
        if "forward" in attributes or any("hooks" in n and v for n, v in attributes.items()):
            raise _Unknown
    for p in objective.parameters():
        if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None):
            raise _Unknown


def _modules(objective: nn.Module) -> Iterator[object]:
    """Yield the class, the mode and the plain attributes of every module."""
    for name, module in objective.named_modules():
        attributes = {
            key: _plain(value)
            for key, value in sorted(vars(module).items())
            if key not in _STRUCTURE and "hooks" not in key
        }
        yield [name, _plain(type(module)), attributes]


def _parameters(objective: nn.Module) -> Iterator[object]:
    """Yield for each parameter the first of its names, whether it is trained, and its layout."""
    first: dict[int, str] = {}
    for name, p in objective.named_parameters(remove_duplicate=False):
        if type(p) is not nn.Parameter:  # a subclass may compute otherwise
            raise _Unknown
        same = first.setdefault(id(p), name)
        yield [name, same, p.requires_grad, str(p.dtype), list(p.stride())]


def _plain(value: object) -> object:
    """Return a value as plain JSON; raises `_Unknown` if that is not possible."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value if not isinstance(value, float) else repr(value)
    if isinstance(value, (list, tuple, torch.Size)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return [[_plain(key), _plain(item)] for key, item in value.items()]
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    if isinstance(value, functools.partial):
        return ["partial", _plain(value.func), _plain(value.args), _plain(value.keywords)]
    if isinstance(value, type) or callable(value):
        return _class_name(value)
    raise _Unknown


def _class_name(value: Any) -> str:
    """Return the full name of a class or function; raises `_Unknown` outside known packages."""
    module, name = getattr(value, "__module__", None) or "", getattr(value, "__qualname__", "")
    known = module.partition(".")[0] in {*KNOWN, "builtins"}
    local = not name or "<" in name  # an instance, a lambda, or a function within another
    if not known or local or inspect.ismethod(value):
        raise _Unknown
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not value:  # a function that only has the name of another, as by functools.wraps
        raise _Unknown
    return f"{module}.{name}"


def _digest(tensors: Mapping[str, Tensor | None]) -> str:
    """Return a digest of named tensors."""
    sha = hashlib.sha256()
    for name, tensor in tensors.items():
        sha.update(f"{name} {None if tensor is None else (tensor.shape, tensor.dtype)}".encode())
        if tensor is not None and tensor.numel():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            sha.update(flat.view(torch.uint8).numpy().data)
    return sha.hexdigest()
