"""How a process executes what it trains: its device, its team, and what is asked of both."""

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
    """What all stages that a process trains have in common.

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
        """Return the execution of one process on the device called `device`."""
        found = resolve_device(device)
        if deterministic:
            prepare_determinism(found)
        return cls(found, compile, deterministic)

    def numerics(self, precision: AnyPrecision = "auto") -> Numerics:
        """Return how this device computes in a precision; raises `OptionError` if it cannot."""
        return Numerics.on(
            self.device, precision, compile=self.compile, deterministic=self.deterministic
        )

    @property
    def hardware(self) -> str:
        """Name of the device."""
        return hardware(self.device)

    @property
    def repeatable(self) -> bool:
        """Whether equal runs give equal bits: on a CPU always, elsewhere if deterministic."""
        return self.deterministic or self.device.type == "cpu"
