"""The builtin models, offered like any plugin's."""

from debiasbench.core.hooks import Register, hookimpl


@hookimpl
def debiasbench_register_models(register: Register) -> None:
    """Offer the builtin models; each is imported only when used."""
    register("cnn", "debiasbench.models.cnn:CNN")
    register("mlp", "debiasbench.models.mlp:MLP")
    register("resnet18", "debiasbench.models.resnet:ResNet18")
    register("resnet50", "debiasbench.models.resnet:ResNet50")
    register("torchvision:", "debiasbench.models.zoo:Torchvision")
    register("timm:", "debiasbench.models.zoo:Timm")
