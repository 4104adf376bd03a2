"""The graph and the shapes of a network, and the check that its outputs stay the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree

from debiasbench.sparsity.copies import attributes_kept, copied
from debiasbench.sparsity.errors import CannotCompact

if TYPE_CHECKING:
    from collections.abc import Mapping

Inputs: TypeAlias = "Tensor | Mapping[str, Tensor]"
Example = TypeVar("Example", bound="Tensor | Mapping[str, Tensor]")

TOLERANCE = 1e-8  # of outputs in float64, relative to the largest

_ADVICE = (
    "Its forward may depend on types, devices or channel counts that torch.fx does not show: read "
    "them from the tensors, or compact the submodules that do not depend on them"
)


def trace(
    model: nn.Module, example: Tensor, expected: object
) -> tuple[fx.GraphModule, dict[fx.Node, torch.Size]]:
    """Return the graph of `model` and the shape of every tensor in it.

    `expected`: the outputs of `model` for `example`. Raises `CannotCompact`.
    """
    name = type(model).__name__
    try:
        with attributes_kept(model):  # a cache would keep a placeholder
            graph = fx.symbolic_trace(model)
    except Exception as error:  # whatever user code raises when it meets a placeholder
        raise CannotCompact(
            f"torch.fx cannot trace {name}: {error}. Write its forward without branches and loops "
            "that depend on tensors, or compact the submodules that can be traced"
        ) from error
    recorder = _Recorder(graph)
    with attributes_kept(model):  # the graph calls layers of the model
        difference = _difference(recorder.run(example.clone()), expected)
    if not difference <= TOLERANCE:
        raise CannotCompact(
            f"The torch.fx trace of {name} computes something else than its forward (difference "
            f"{difference:.1e}). Causes are an operation such as `x += y` on a tensor that is used "
            "again, or randomness in eval mode: write the forward without them"
        )
    for tensor, reader in recorder.overwritten:
        raise CannotCompact(
            f"In {name}, {reader} reads {tensor} after an operation in place has overwritten it. "
            "Set inplace=False for that operation, and use its output where it is wanted"
        )
    return graph, recorder.shapes


def converted(example: Example, dtype: torch.dtype, device: torch.device | str) -> Example:
    """Return an example on a device, with real numbers in another type."""

    def one(x: Tensor) -> Tensor:
        return x.detach().to(device, dtype if x.is_floating_point() else x.dtype)

    changed: Example = _pytree.tree_map_only(Tensor, one, example)
    return changed


def outputs(model: nn.Module, example: Inputs, condition: str) -> object:
    """Return the outputs of `model`; `condition` completes "does not run ..." in the error."""
    try:
        with attributes_kept(model):
            return model(_pytree.tree_map_only(Tensor, Tensor.clone, example))
    except Exception as error:  # whatever user code raises
        raise CannotCompact(
            f"{type(model).__name__} does not run {condition}: {error}. {_ADVICE}"
        ) from error


def check_outputs(small: nn.Module, example: Inputs, expected: object) -> None:
    """Raise `CannotCompact` unless `small` has the expected outputs."""
    without = "without its dead channels"
    difference = _difference(outputs(small, example, without), expected)
    if not difference <= TOLERANCE:
        raise CannotCompact(
            f"The outputs of {type(small).__name__} change by {difference:.1e} of the largest "
            f"{without}. {_ADVICE}"
        )


def check_runs(small: nn.Module, model: nn.Module, example: Inputs) -> None:
    """Raise `CannotCompact` if `small` fails in its own type and on its device, and `model` runs.

    A network may keep tensors where they are not found and cannot be converted.
    """
    like = next((p for p in small.parameters() if p.is_floating_point()), None)
    if like is not None:
        example = converted(example, like.dtype, like.device)
    try:
        outputs(small, example, "in its own type without its dead channels")
    except CannotCompact as error:
        try:
            outputs(copied(model).eval(), example, "in its own type")
        except CannotCompact:
            return
        raise error


class _Recorder(fx.Interpreter):
    """Runs a traced network; records shapes, and tensors that are read after being overwritten."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.shapes: dict[fx.Node, torch.Size] = {}
        self.overwritten: list[tuple[fx.Node, fx.Node]] = []  # a tensor, and a later reader
        self._versions: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and record what it reads and computes."""
        inputs = [i for i in n.all_input_nodes if i in self._versions]
        changed = [i for i in inputs if self.env[i]._version != self._versions[i]]
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.overwritten += [(i, n) for i in changed]
            self.shapes[n], self._versions[n] = result.shape, result._version
        return result


def _difference(actual: object, expected: object) -> float:
    """Return the largest difference between outputs, relative to the largest of each tensor."""
    differences = [0.0]
    for a, b in zip(_tensors(actual), _tensors(expected), strict=True):
        if a.shape != b.shape:
            return math.inf
        if b.numel():
            scale = float(b.abs().max())
            differences.append(float((a - b).abs().max()) / (scale or 1.0))
    return float(torch.tensor(differences).max())  # NaN if one is


def _tensors(output: object) -> list[Tensor]:
    leaves = _pytree.tree_leaves(output)
    return [leaf.double() for leaf in leaves if isinstance(leaf, Tensor)]
