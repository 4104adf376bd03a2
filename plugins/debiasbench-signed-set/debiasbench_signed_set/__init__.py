"""SET with its paper's drop rule as a debiasbench plugin, imported when it is used."""

from debiasbench import Register, hookimpl


@hookimpl
def debiasbench_register_sparsifiers(register: Register) -> None:
    """Offer the algorithm to `--sparse`."""
    register("signed-set", "debiasbench_signed_set.updater:SignedSET")
