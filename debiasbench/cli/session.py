"""The options of a session, which several commands share, and the session that they open."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debiasbench.cli.common import (
    arithmetic_options,
    data_root_option,
    device_option,
    results_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from debiasbench.common.progress import Progress
    from debiasbench.core.settings import Precision
    from debiasbench.runs.session import Session
    from debiasbench.specs.plugins import Plugins
    from debiasbench.training.precision import Compile


@dataclass(frozen=True)
class SessionOptions:
    """The options of a session that a command was given; see `Session`."""

    data_root: Path
    results: Path = Path("results")
    device: str = "auto"
    compile: Compile = "off"
    deterministic: bool = False
    graphs: bool = True

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


def session_options(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    """Add options of a session, and pass them to the command as its argument `options`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def collected(**arguments: Any) -> Any:
            names = [field.name for field in fields(SessionOptions) if field.name in arguments]
            options = SessionOptions(**{name: arguments.pop(name) for name in names})
            return command(options=options, **arguments)

        decorated: Callable[..., Any] = collected
        for decorator in reversed(decorators):
            decorated = decorator(decorated)
        return decorated

    return decorate


ALL = (results_option, data_root_option, device_option, arithmetic_options)
