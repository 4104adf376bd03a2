"""An example of a debiasbench plugin; the method is imported only when it is used."""

from debiasbench import Register, hookimpl


@hookimpl
def debiasbench_register_methods(register: Register) -> None:
    """Register the method."""
    register("halfway", "debiasbench_halfway.method:Halfway")
