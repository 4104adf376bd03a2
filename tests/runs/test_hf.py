"""Runs with a two-layer BERT: every method, sparse, in bf16, killed and resumed, exported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from debiasbench.common.errors import OptionError
from debiasbench.common.progress import Progress
from debiasbench.records.store import read_weights
from debiasbench.runs.export import export
from debiasbench.runs.session import Session
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.training import stage_store
from tests.conftest import ACME
from tests.running import QUICK
from tests.runs.resume.stopping import essence
from tests.tiny_bert import ReviewsPlugin, save  # skips without transformers and tokenizers

PLUGINS = Plugins([(ReviewsPlugin(), ACME)])

# what each says: they change pixels, or mix inputs, or need networks of two depths
REFUSED = {
    "masktune": "needs a data set of images",
    "mixup": "mixes inputs that are real numbers",
    "lisa": "mixes inputs that are real numbers",
    "lc": "mixes inputs that are real numbers",
    "denetdm": "needs a network of depth 2",
}
BUILTIN = [n for n in PLUGINS.methods if PLUGINS.methods[n].origin.builtin]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    (tmp_path / "data").mkdir()
    with Session(
        PLUGINS,
        data_root=tmp_path / "data",
        results=tmp_path / "results",
        device="cpu",
        progress=None,
    ) as one:
        yield one


def spec(bert: Path, method: str = "erm", **more: Any) -> Any:
    return make_spec(
        PLUGINS,
        method=method,
        dataset="reviews",
        model=f"hf:{bert}",
        model_options={"max_length": 40},
        **{"method_options": QUICK.get(method, {}), **more},
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", BUILTIN)
def test_builtin_methods_run_unchanged_or_say_why_not(
    session: Session, bert: Path, method: str
) -> None:
    if method in REFUSED:
        with pytest.raises(OptionError, match=REFUSED[method]) as caught:
            session.run(spec(bert, method))
        assert "\n" not in str(caught.value)
        return
    record = session.run(spec(bert, method)).record
    (first, *_) = record.outcomes.values()
    assert 0 <= first.test.metrics["worst_group"] <= first.test.metrics["average"] <= 1
    assert record.provenance.versions["transformers"] != "0+unknown"


def test_bert_learns_to_read_the_texts(session: Session, bert: Path) -> None:
    long = spec(bert, dataset_options={"n": 256}, training={"epochs": 8})
    record = session.run(long).record
    assert record.outcomes["last"].test.metrics["average"] > 0.9


def test_bert_reads_pairs_and_learns(session: Session, bert: Path) -> None:
    options = {"n": 256, "pairs": True}
    record = session.run(spec(bert, dataset_options=options, training={"epochs": 8})).record
    assert record.outcomes["last"].test.metrics["average"] > 0.9


def test_it_trains_in_bf16(session: Session, bert: Path) -> None:
    exact = session.run(spec(bert, training={"precision": "fp32"})).record
    half = session.run(spec(bert, training={"precision": "bf16"})).record
    loss = [record.curves[0].values["loss"][0] for record in (exact, half)]
    assert loss[0] != loss[1]
    assert loss[0] == pytest.approx(loss[1], rel=0.05)


@pytest.mark.parametrize("sparse", ["rigl", "set"])
def test_sparse_training_has_the_density_of_the_linear_layers(
    session: Session, bert: Path, sparse: str
) -> None:
    chosen = spec(bert, sparse=sparse, sparse_options={"density": 0.2})
    run = session.run(chosen, keep_weights=True)
    assert run.record.cost.density == pytest.approx(0.2, abs=0.01)
    from safetensors.torch import load

    state = load(read_weights(session.store.path(run.record.spec), run.record))
    embeddings = {n: v for n, v in state.items() if "embeddings" in n and n.endswith("weight")}
    assert embeddings
    dense = [bool(v[1:].ne(0).all()) for v in embeddings.values()]  # the first is padding's
    assert all(dense)
    linear = [v for n, v in state.items() if v.dim() == 2 and n not in embeddings]
    active = sum(int((v != 0).sum()) for v in linear) / sum(v.numel() for v in linear)
    assert active == pytest.approx(0.2, abs=0.01)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.runs import test_hf
sys.exit(test_hf.killed(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
"""


class Killing(Progress):
    """Kills this process after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, count: int = 1) -> None:
        self.left -= count
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(bert: Path, root: Path, steps: int) -> int:
    """Train in this process until it is killed; 0 if it ends before."""
    stage_store.SHARE = 1e9  # a checkpoint after every step
    with Session(
        PLUGINS,
        data_root=root,
        results=root / "results",
        device="cpu",
        checkpoint_every=0.0,
        progress=Killing(steps),
    ) as one:
        one.run(long_rest(bert), keep_weights=True)
    return 0


def long_rest(bert: Path) -> Any:
    return spec(bert, "rest", training={"epochs": 3})


@pytest.mark.slow
def test_rest_that_was_killed_resumes_to_equal_bits(bert: Path, tmp_path: Path) -> None:
    root, whole = tmp_path / "killed", tmp_path / "whole"
    root.mkdir()
    whole.mkdir()

    def go(steps: int) -> int:
        words = [sys.executable, "-c", KILLED, str(bert), str(root), str(steps)]
        return subprocess.run(words, check=False, capture_output=True, timeout=250).returncode

    assert go(5) == -signal.SIGKILL
    assert go(4) == -signal.SIGKILL
    assert go(1000) == 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert killed(bert, whole, 1000) == 0
    finally:
        torch.set_num_threads(threads)
    records = []
    for folder in (root, whole):
        with Session(PLUGINS, data_root=folder, results=folder / "results", device="cpu") as one:
            run = one.run(long_rest(bert), keep_weights=True)
        records.append((run.record.weights, essence(run.record, folder / "results")))
    assert records[0] == records[1]


def sparse_record(session: Session, bert: Path) -> Path:
    chosen = spec(bert, sparse="static", sparse_options={"density": 0.04})
    return session.store.path(session.run(chosen, keep_weights=True).record.spec)


@pytest.mark.parametrize("to", ["packed", "csr"])
def test_a_sparse_bert_is_exported_without_its_zeros(
    session: Session, bert: Path, tmp_path: Path, to: Any
) -> None:
    done = export(sparse_record(session, bert), PLUGINS, to=to, out=tmp_path / "p")
    assert done.bytes[1] < done.bytes[0]
    assert done.difference == 0


def test_a_sparse_bert_is_compacted_between_its_linear_layers(
    session: Session, bert: Path, tmp_path: Path
) -> None:
    done = export(sparse_record(session, bert), PLUGINS, to="compact", out=tmp_path / "c.pt2")
    assert done.parameters[1] < done.parameters[0]
    assert done.difference < 1e-5
