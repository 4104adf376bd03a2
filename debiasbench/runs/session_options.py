"""`SessionOptions`: how to open a session, as plain data that commands and files hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from debiasbench.common.canonical import Strict

if TYPE_CHECKING:
    from debiasbench.common.progress import Progress
    from debiasbench.core.settings import Precision
    from debiasbench.runs.session import Session
    from debiasbench.specs.plugins import Plugins


@dataclass(frozen=True)
class SessionOptions(Strict):
    """The options of a session; see `Session`."""

    data_root: Path
    results: Path = Path("results")
    device: str = "auto"
    compile: Literal["off", "on"] = "off"
    deterministic: bool = False
    graphs: bool = True
    checkpoint_every: float = 60.0

    def open(
        self, plugins: Plugins, *, progress: Progress | None = None, interruptible: bool = False
    ) -> Session:
        """Open the session; this imports torch, which takes seconds."""
        from debiasbench.runs.session import Session

        return Session(
            plugins,
            data_root=self.data_root,
            results=self.results,
            device=self.device,
            compile=self.compile,
            deterministic=self.deterministic,
            graphs=self.graphs,
            checkpoint_every=self.checkpoint_every,
            interruptible=interruptible,
            progress=progress,
        )

    def check_device(self) -> None:
        """Raise `OptionError` if the device is not available; for the CPU without torch."""
        if self.device not in ("auto", "cpu"):
            self.precision()

    def precision(self) -> Precision:
        """Return the precision that "auto" means on the device; for a CPU without torch."""
        if self.device == "cpu":
            return "fp32"
        from debiasbench.training.execution import Execution

        return Execution.on(self.device).numerics().precision

    def absolute(self) -> SessionOptions:
        """Return the options with absolute paths, for a process in another folder."""
        return replace(self, data_root=self.data_root.absolute(), results=self.results.absolute())
