"""CVaR-DRO as a debiasbench plugin; the method is imported only when it is used."""

from debiasbench import Register, hookimpl


@hookimpl
def debiasbench_register_methods(register: Register) -> None:
    """Register the method."""
    register("cvar", "debiasbench_cvar.method:CVaRDRO")
