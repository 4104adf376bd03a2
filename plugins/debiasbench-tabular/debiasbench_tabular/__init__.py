"""A data set and a model for tables; both are imported only when they are used."""

from debiasbench import Register, hookimpl


@hookimpl
def debiasbench_register_datasets(register: Register) -> None:
    """Register the data set."""
    register("breast-cancer", "debiasbench_tabular.dataset:BreastCancer")


@hookimpl
def debiasbench_register_models(register: Register) -> None:
    """Register the model."""
    register("tabular-resnet", "debiasbench_tabular.model:TabularResNet")
