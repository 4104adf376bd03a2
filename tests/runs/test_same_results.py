"""Equal specs give the results that they gave before the package was redrawn, bit for bit.

`same_results.json` was made by commit 0591e01: digests of weights and predictions of short runs on
`digits`. Those of `lff` and `dfr` were made again when both methods changed, and those in which a
selection rule keeps another epoch when the rules got revision 2; ids are those of revision 1. Bits
depend on torch and on the processor. A probe that uses torch alone tells whether this machine
computes as the one that made the digests; where it does not, the tests are skipped.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from debiasbench.records.beside import digest
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests.running import run

pytestmark = pytest.mark.slow  # half a minute in total

STORED = json.loads((Path(__file__).parent / "same_results.json").read_text())


def probe() -> str:
    """Return a digest of products, convolutions and their gradients, in float32 and bfloat16."""
    sha = hashlib.sha256(torch.__version__.encode())
    rng = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(256, 100),
            nn.ReLU(),
            nn.Linear(100, 10),
        )
    for size in (64, 62, 20, 37):
        x = torch.rand(size, 3, 28, 28, generator=rng)
        for half in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = nn.functional.cross_entropy(network(x), torch.arange(size) % 10)
            torch.autograd.backward(loss)
    for p in network.parameters():
        assert p.grad is not None
        sha.update(p.grad.numpy().tobytes())
    return sha.hexdigest()


@pytest.mark.skipif(
    probe() != STORED["probe"],
    reason=f"this machine computes in other bits than torch {STORED['torch']} did there",
)
@pytest.mark.parametrize("name", STORED["cases"])
def test_a_spec_gives_the_bits_that_it_gave_before(name: str, tmp_path: Path) -> None:
    case: dict[str, Any] = STORED["cases"][name]
    plugins = Plugins()
    spec = make_spec(plugins, **case["spec"])
    record = run(spec, plugins, results=tmp_path, data_root=tmp_path, keep_weights=True).record
    assert record.weights is not None
    assert record.predictions is not None
    assert record.cost is not None
    assert replace(record.spec, revisions=None).id == case["id"]
    made = load_file(tmp_path / record.predictions["file"])
    # what methods infer of training samples is stored in the same file since then
    assert digest({k: v for k, v in made.items() if k[:6] != "train."}) == case["predictions"]
    assert record.weights["sha256"] == case["weights"]
    assert {rule: outcome.epoch for rule, outcome in record.outcomes.items()} == case["epochs"]
    assert record.cost.density == case["density"]
    assert record.cost.training_flops == case["training_flops"]
    assert record.cost.inference_flops == case["inference_flops"]
