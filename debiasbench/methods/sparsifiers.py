"""The sparse training algorithms that `--sparse` offers, registered as a stranger's would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.core.hooks import hookimpl

if TYPE_CHECKING:
    from debiasbench.core.hooks import Register

UPDATERS = {
    "static": "updaters:Static",
    "set": "updaters:SET",
    "rigl": "updaters:RigL",
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
    """Offer the library's updaters."""
    for name, target in UPDATERS.items():
        register(name, f"debiasbench.sparsity.{target}")
