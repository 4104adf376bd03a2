"""Runs of debiasbench in MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench import hookimpl

if TYPE_CHECKING:
    from debiasbench import Register


@hookimpl
def debiasbench_register_trackers(register: Register) -> None:
    """Register the tracker by name, without importing it."""
    register("mlflow", "debiasbench_mlflow.tracker:MLflow")
