"""Runs of debiasbench in TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench import hookimpl

if TYPE_CHECKING:
    from debiasbench import Register


@hookimpl
def debiasbench_register_trackers(register: Register) -> None:
    """Register the tracker by name, without importing it."""
    register("tensorboard", "debiasbench_tensorboard.tracker:TensorBoard")
