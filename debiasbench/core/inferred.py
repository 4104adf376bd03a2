"""`Inferred`: what a method inferred of the training samples, kept for the panel of groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from debiasbench.common.errors import OptionError

MOST_GROUPS = 4096  # a record has a row for each of them


@dataclass(frozen=True, eq=False)
class Inferred:
    """What a method inferred of the N training samples, on the CPU; None: nothing of the kind.

    `groups`: (N,) int64 pseudo-groups, from 0. `conflict`: (N,) bool, samples that it takes for
    bias-conflicting. `scores`: (N,) float32, larger for samples that rather conflict; never NaN.
    """

    groups: Tensor | None = None
    conflict: Tensor | None = None
    scores: Tensor | None = None

    @property
    def columns(self) -> dict[str, Tensor]:
        """What was inferred, by name."""
        named = {"groups": self.groups, "conflict": self.conflict, "scores": self.scores}
        return {name: values for name, values in named.items() if values is not None}


def checked(
    samples: int, *, groups: Tensor | None, conflict: Tensor | None, scores: Tensor | None
) -> Inferred:
    """Copy what a method inferred of all training samples; raise `OptionError` for what is wrong.

    `samples`: N. See `Lab.inferred` for the arguments.
    """
    if groups is None and conflict is None and scores is None:
        raise OptionError("lab.inferred() was given nothing: give groups, conflict or scores")
    pseudo = _column("groups", groups, samples)
    if pseudo is not None and (pseudo.dtype == torch.bool or not _is_whole(pseudo)):
        raise OptionError(f"groups must be whole numbers (int64), not {_type(pseudo)}")
    if pseudo is not None and int(pseudo.min()) < 0:
        raise OptionError(
            f"groups has the value {int(pseudo.min())}: number the pseudo-groups from 0"
        )
    if pseudo is not None and (different := len(np.unique(pseudo.numpy()))) > MOST_GROUPS:
        raise OptionError(
            f"groups has {different:,} different pseudo-groups, at most {MOST_GROUPS:,} are "
            "compared with the truth: give small ones a number in common"
        )
    flags = _column("conflict", conflict, samples)
    if flags is not None and flags.dtype != torch.bool:
        raise OptionError(f"conflict must be bool, not {_type(flags)}: compare it with something")
    values = _column("scores", scores, samples)
    if values is not None and not values.is_floating_point():
        raise OptionError(f"scores must be floating-point numbers, not {_type(values)}")
    if values is not None and bool(values.isnan().any()):
        raise OptionError(f"scores has {int(values.isnan().sum())} NaN of {samples} values")
    return Inferred(
        None if pseudo is None else pseudo.long(),
        flags,
        None if values is None else values.float(),
    )


def _column(name: str, given: Tensor | None, samples: int) -> Tensor | None:
    """Return a copy of (N,) values on the CPU."""
    if given is None:
        return None
    values = torch.as_tensor(given).detach().to("cpu", copy=True)
    if values.shape != (samples,):
        raise OptionError(
            f"{name} must be ({samples},), one value per training sample in their order, not "
            f"{tuple(values.shape)}"
        )
    return values


def _is_whole(values: Tensor) -> bool:
    return not values.is_floating_point() and not values.is_complex()


def _type(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
