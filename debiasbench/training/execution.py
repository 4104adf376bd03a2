"""`Execution`: the device and the team of processes that train, and how they compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from debiasbench.training.device import hardware, prepare_determinism, resolve_device
from debiasbench.training.distributed import Alone
from debiasbench.training.precision import Numerics

if TYPE_CHECKING:
    import torch

    from debiasbench.core.settings import AnyPrecision
    from debiasbench.training.distributed import Team
    from debiasbench.training.precision import Compile


@dataclass(frozen=True)
class Execution:
    """The settings that all stages of a process share.

    `compile`, `deterministic`: see `Numerics`. `team`: the processes that train together.
    """

    device: torch.device
    compile: Compile = "off"
    deterministic: bool = False
    team: Team = field(default_factory=Alone)

    @classmethod
    def on(
        cls,
        device: str = "auto",
        *,
        compile: Compile = "off",  # noqa: A002 - what torch calls it
        deterministic: bool = False,
    ) -> Execution:
        """Return the execution of one process on the device with the name `device`."""
        resolved = resolve_device(device)
        if deterministic:
            prepare_determinism(resolved)
        return cls(resolved, compile, deterministic)

    def numerics(self, precision: AnyPrecision = "auto") -> Numerics:
        """Return the numerics of a precision.

        Raises `OptionError` if the device does not support it.
        """
        return Numerics.on(
            self.device, precision, compile=self.compile, deterministic=self.deterministic
        )

    @property
    def hardware(self) -> str:
        """Name of the device."""
        return hardware(self.device)

    @property
    def repeatable(self) -> bool:
        """Whether equal runs are bitwise equal: on a CPU always, otherwise if deterministic."""
        return self.deterministic or self.device.type == "cpu"
