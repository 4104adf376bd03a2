"""SET with the drop rule of its paper; imported only when it is used."""

from debiasbench import Register, hookimpl


@hookimpl
def debiasbench_register_sparsifiers(register: Register) -> None:
    """Register the algorithm for `--sparse`."""
    register("signed-set", "debiasbench_signed_set.updater:SignedSET")
