"""The identity of a stage: stages with equal identities have equal results."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from debiasbench.core.objective import CrossEntropy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from debiasbench.core.stage import Stage


@dataclass(frozen=True)
class Identity:
    """Everything that decides a stage, except the data, the code and the machine of its run.

    `content`: plain values. `shared`: whether the content is complete, so that a stage of another
    run with equal content is the same stage.
    """

    content: Mapping[str, object]
    shared: bool


def identity(stage: Stage) -> Identity:
    """Return the identity of a stage in its current state; changes nothing."""
    objective, components = stage.objective, stage.components
    identities = [getattr(component, "identity", None) for component in components]
    content = {
        "objective": f"{type(objective).__module__}.{type(objective).__qualname__}",
        "modules": repr(objective),
        "state": _digest(objective.state_dict()),
        "labels": _digest(stage.view.labels),
        "training": asdict(stage.settings),
        "seed": stage.seed,
        "steps": stage.steps,
        "drawn": _digest({"weights": stage.batches.weights, "subset": stage.batches.subset}),
        "extra": _digest(stage.extra),
        "masks": _digest(stage.masks),
        "components": [
            own or type(component).__qualname__
            for own, component in zip(identities, components, strict=True)
        ],
    }
    # other objectives, components and hooks may depend on something that is not in the content
    known = type(objective) is CrossEntropy and None not in identities
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in objective.modules())
    return Identity(content, shared=known and not hooked)


def _digest(tensors: Mapping[str, Tensor | None]) -> str:
    """Return a digest of named tensors."""
    sha = hashlib.sha256()
    for name, tensor in tensors.items():
        sha.update(f"{name} {None if tensor is None else (tensor.shape, tensor.dtype)}".encode())
        if tensor is not None and tensor.numel():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            sha.update(flat.view(torch.uint8).numpy().data)
    return sha.hexdigest()
