"""The cost of a run: seconds, memory, parameters, and FLOPs at the final density."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from debiasbench.records.record import Cost
from debiasbench.sparsity import maskable

if TYPE_CHECKING:
    from debiasbench.core.view import HeldOut
    from debiasbench.runs.fit import Fitted
    from debiasbench.training.predict import Predictor


def cost_of(
    fitted: Fitted, validation: HeldOut, predictor: Predictor, *, seconds: float, peak_memory: int
) -> Cost:
    """Return the cost of a run that took `seconds` and `peak_memory` bytes."""
    trained, costs = fitted.trained, fitted.costs
    network = trained.objective.network
    sizes = {f"network.{n}": p.numel() for n, p in maskable(network).items()}
    density = {name: trained.densities.get(name, 1.0) for name in sizes}
    inactive = sum(round((1 - density[name]) * size) for name, size in sizes.items())
    maskable_weights = sum(sizes.values())
    parameters = sum(p.numel() for p in network.parameters())
    dense, by_layer = predictor.flops(trained.objective, validation.view)
    training = sum(cost.seconds for cost in costs)
    return Cost(
        wall_seconds=seconds,
        training_seconds=training,
        images_per_second=sum(cost.samples for cost in costs) / training if training else 0.0,
        peak_memory_bytes=peak_memory,
        parameters=parameters,
        active_parameters=parameters - inactive,
        density=1 - inactive / maskable_weights if maskable_weights else 1.0,
        inference_flops=dense - sum((1 - density[n]) * by_layer.get(n, 0.0) for n in sizes),
        training_flops=sum(cost.flops for cost in costs),
        stages=[asdict(cost) for cost in costs],
    )
