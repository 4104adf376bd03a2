"""`Execution`: the device and the team of processes that train, and how they compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from debiasbench.training.device import hardware, prepare_determinism, resolve_device
from debiasbench.training.distributed import Alone
from debiasbench.training.graph import graph_of
from debiasbench.training.precision import Numerics

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from debiasbench.core.settings import AnyPrecision
    from debiasbench.training.distributed import Team
    from debiasbench.training.graph import Graph
    from debiasbench.training.precision import Compile


@dataclass(frozen=True)
class Execution:
    """The settings that all stages of a process share.

    `compile`, `deterministic`: see `Numerics`. `team`: the processes that train together. `graph`:
    makes an empty graph, in which steps are captured and replayed; None computes all steps eagerly.
    """

    device: torch.device
    compile: Compile = "off"
    deterministic: bool = False
    team: Team = field(default_factory=Alone)
    graph: Callable[[], Graph] | None = None

    @classmethod
    def on(
        cls,
        device: str = "auto",
        *,
        compile: Compile = "off",  # noqa: A002 - what torch calls it
        deterministic: bool = False,
        graphs: bool = True,
    ) -> Execution:
        """Return the execution of one process on the device with the name `device`.

        `graphs`: whether steps are captured and replayed as graphs, if it is a CUDA device.
        """
        resolved = resolve_device(device)
        if deterministic:
            prepare_determinism(resolved)
        graph = graph_of(resolved) if graphs else None
        return cls(resolved, compile, deterministic, graph=graph)

    def numerics(self, precision: AnyPrecision = "auto") -> Numerics:
        """Return the numerics of a precision.

        Raises `OptionError` if the device does not support it.
        """
        return Numerics.on(
            self.device,
            precision,
            compile=self.compile,
            deterministic=self.deterministic,
            graphs=self.graph is not None and self.team.size == 1,
        )

    @property
    def hardware(self) -> str:
        """Name of the device."""
        return hardware(self.device)

    @property
    def repeatable(self) -> bool:
        """Whether equal runs are bitwise equal: on a CPU always, otherwise if deterministic."""
        return self.deterministic or self.device.type == "cpu"
