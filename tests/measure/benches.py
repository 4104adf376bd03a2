"""A benchmark whose figures are round, for tests."""

from __future__ import annotations

from debiasbench.measure.bench import Bench

BENCH = Bench(
    spec={
        "method": {"name": "erm"},
        "dataset": {"name": "toy"},
        "model": {"name": "mlp"},
        "sparse": {"name": "static"},
    },
    stage="train",
    batch_size=50,
    steps=4,
    training={"engine": [1.0, 2.0, 4.0], "bare": [1.0, 3.0, 2.0], "loader": [4.0, 4.0, 4.0]},
    samples={"engine": 350, "bare": 350, "loader": 350},
    around=[0.5, 0.5, 0.25],
    memory={"engine": [3_000_000] * 3, "bare": [2_000_000] * 3, "loader": [2_000_000] * 3},
    evaluation={"engine": [0.5, 0.25, 0.5], "bare": [0.25, 0.5, 0.25]},
    evaluated=100,
    split={
        "data": [0.1, 0.3],
        "forward": [0.2, 0.2],
        "backward": [0.4, 0.4],
        "optimizer": [0.1, 0.1],
        "sparsity": [0.0, 0.2],
        "step": [0.8, 1.2],
    },
    flops=1e9,
    products={"100": [1e-3, 2e-3], "1000": [0.5, 0.25]},
    precision="fp32",
    compile="off",
    deterministic=False,
    workers=2,
    hardware="abacus",
    torch="2.7.0",
    python="3.11.7",
    notes=["A note."],
)
