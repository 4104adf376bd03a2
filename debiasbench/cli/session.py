"""The options of a session, which several commands share."""

from __future__ import annotations

from dataclasses import fields
from functools import wraps
from typing import TYPE_CHECKING, Any

from debiasbench.cli.common import (
    arithmetic_options,
    data_root_option,
    device_option,
    results_option,
)
from debiasbench.runs.session_options import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Callable


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
