"""Register the builtin models like those of any plugin."""

from debiasbench.core.hooks import Register, hookimpl


@hookimpl
def debiasbench_register_models(register: Register) -> None:
    """Register the builtin models; each is imported only when it is used."""
    register("cnn", "debiasbench.models.cnn:CNN")
    register("mlp", "debiasbench.models.mlp:MLP")
    register("resnet18", "debiasbench.models.resnet:ResNet18")
    register("resnet50", "debiasbench.models.resnet:ResNet50")
    register("torchvision:", "debiasbench.models.zoo:Torchvision")
    register("timm:", "debiasbench.models.zoo:Timm")
    register("hf:", "debiasbench.models.hf:HuggingFace")
