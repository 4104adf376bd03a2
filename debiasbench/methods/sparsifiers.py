"""The sparse training algorithms for `--sparse`, registered like those of any plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.core.hooks import hookimpl

if TYPE_CHECKING:
    from debiasbench.core.hooks import Register

UPDATERS = {
    "static": "updaters:Static",
    "set": "updaters:SET",
    "rigl": "updaters:RigL",
    "rigl-released": "presets:RigLReleased",
    "itop": "updaters:ITOP",
    "snfs": "updaters:SNFS",
    "gmp": "updaters:GMP",
    "granet": "updaters:GraNet",
    "mest": "updaters:MEST",
    "srigl": "updaters:SRigL",
    "rest": "presets:REST",
    "rest-released": "presets:RESTReleased",
}


@hookimpl
def debiasbench_register_sparsifiers(register: Register) -> None:
    """Register the updaters of the sparsity library."""
    for name, target in UPDATERS.items():
        register(name, f"debiasbench.sparsity.{target}")
