"""CVaR-DRO as a debiasbench plugin; the method itself is imported when it is used."""

from debiasbench import Register, hookimpl


@hookimpl
def debiasbench_register_methods(register: Register) -> None:
    """Offer the method."""
    register("cvar", "debiasbench_cvar.method:CVaRDRO")
