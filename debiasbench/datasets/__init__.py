"""Register the builtin data sets like those of any plugin."""

from debiasbench.core.hooks import Register, hookimpl


@hookimpl
def debiasbench_register_datasets(register: Register) -> None:
    """Register the builtin data sets; each is imported only when it is used."""
    register("digits", "debiasbench.datasets.digits:Digits")
    register("cmnist", "debiasbench.datasets.cmnist:CMNIST")
    register("cifar10c", "debiasbench.datasets.cifar10c:CIFAR10C")
    register("bffhq", "debiasbench.datasets.bffhq:BFFHQ")
    register("waterbirds", "debiasbench.datasets.waterbirds:Waterbirds")
    register("celeba", "debiasbench.datasets.celeba:CelebA")
    register("multinli", "debiasbench.datasets.multinli:MultiNLI")
    register("civilcomments", "debiasbench.datasets.civilcomments:CivilComments")
    register("imported:", "debiasbench.datasets.imported:Imported")
