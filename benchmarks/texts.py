"""Speed of texts: tokenising many sentences once, and steps of a small BERT beside a bare loop.

    python benchmarks/texts.py tokens [--sentences 400000]
    python benchmarks/texts.py steps [--layers 2] [--width 128] [--rounds 7] [--steps 20]

Needs the extra `text` and no network: a WordPiece is trained on made-up sentences, whose words are
as frequent as in English (Zipf) and whose lengths are those of pairs in MultiNLI, 30 words on
average. `tokens` writes the cache of a data root and prints seconds and the peak memory of the
process. On a busy machine, its processor time says more: it is that of all threads, and an idle
machine with two cores needs between half of it and all of it. Limit it to two cores with
`taskset -c 0,1` and RAYON_NUM_THREADS=2. `steps` is `debiasbench bench` for a BERT with random
weights.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np
import torch

from debiasbench import Dataset, Split, Task, hookimpl
from debiasbench.core.texts import Texts
from debiasbench.files.token_cache import tokenised
from debiasbench.models.hf import HuggingFace

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = 50_000


def sentences(count: int, seed: int) -> Iterator[str]:
    """Yield sentences of 4 to about 80 words, 30 on average."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(rng.choice(letters, size=rng.integers(1, 10))) for _ in range(WORDS)]
    shares = 1 / np.arange(3, WORDS + 3)
    shares /= shares.sum()
    for first in range(0, count, 1000):
        lengths = 4 + rng.geometric(1 / 26, min(1000, count - first)).clip(max=76)
        drawn = iter(rng.choice(WORDS, size=lengths.sum(), p=shares).tolist())
        for length in lengths.tolist():
            yield " ".join(words[next(drawn)] for _ in range(length)).capitalize() + "."


def save(folder: Path, *, layers: int, width: int) -> None:
    """Write a BERT with random weights and a WordPiece of 30,000 tokens."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    fast = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer()
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=30_000, special_tokens=SPECIAL, show_progress=False
    )
    fast.train_from_iterator(sentences(20_000, seed=1), trainer)
    ends = [(name, fast.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    config = transformers.BertConfig(
        vocab_size=fast.get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    transformers.BertTokenizerFast(tokenizer_object=fast).save_pretrained(folder)


@dataclass(frozen=True)
class MadeUp(Dataset):
    """Sentences without meaning."""

    training = {  # noqa: RUF012 - as plugins write it
        "batch_size": 32, "optimizer": "adamw", "lr": 2e-5, "schedule": "linear", "clip_norm": 1.0
    }  # fmt: skip

    n: int = 2000

    def load(self, root: Path) -> Task:
        """Make three splits; four fifths of the sentences are for training."""
        parts = []
        for seed, n in enumerate((self.n * 8 // 10, self.n // 10, self.n // 10)):
            y = torch.arange(n) % 2
            texts = Texts.of((text,) for text in sentences(n, seed))
            parts.append(Split(texts, y, torch.arange(n) // 2 % 2, 2))
        train, val, test = parts
        aligned = torch.eye(2, dtype=torch.bool)
        return Task(train, val, test, ("no", "yes"), ("a", "b"), aligned)


class Plugin:
    """Offers the sentences."""

    @hookimpl
    def debiasbench_register_datasets(self, register: Any) -> None:
        """Register them."""
        register("made-up", MadeUp)


def machine() -> str:
    """Return what the figures depend on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {platform.processor() or platform.machine()}, load {load}"


def tokens(args: argparse.Namespace, folder: Path) -> None:
    """Tokenise sentences into a cache, and read it back."""
    save(folder / "bert", layers=2, width=128)
    tokenizer = HuggingFace(str(folder / "bert")).tokenizer()
    task = MadeUp(args.sentences).load(folder)
    fingerprint = task.fingerprint()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    begun, computed = time.perf_counter(), time.process_time()
    made = tokenised(task, fingerprint, tokenizer, folder)
    seconds, computed = time.perf_counter() - begun, time.process_time() - computed
    begun = time.perf_counter()
    tokenised(task, fingerprint, tokenizer, folder)
    again = time.perf_counter() - begun
    assert isinstance(made.train.x, Mapping)
    lengths = made.train.x["length"].float()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{args.sentences:,} sentences of {lengths.mean():.1f} tokens (at most {lengths.max():.0f})"
        f": {seconds:.1f} s, {computed:.1f} s of processor time in all threads; {again:.1f} s from "
        f"the cache; peak memory {peak:.2f} GB, {memory:.2f} GB before; {machine()}"
    )


def steps(args: argparse.Namespace, folder: Path) -> None:
    """Time steps beside a bare loop."""
    from debiasbench.measure import stopwatch
    from debiasbench.measure.bench import bench
    from debiasbench.runs.session import Session
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.registry import Origin
    from debiasbench.specs.resolve import make_spec

    if args.processor:
        stopwatch.now = time.process_time
    save(folder / "bert", layers=args.layers, width=args.width)
    plugins = Plugins([(Plugin(), Origin("benchmark", "0"))])
    spec = make_spec(plugins, method="erm", dataset="made-up", model=f"hf:{folder / 'bert'}")
    with Session(plugins, data_root=folder, results=folder / "results", progress=None) as session:
        found = bench(session, session.resolve(spec), steps=args.steps, rounds=args.rounds)
    for name, seconds in found.training.items():
        each = [1000 * one / args.steps for one in seconds]
        low, middle, high = quantiles(each, n=4)
        print(
            f"{name:8} median {middle:.1f} ms a step, quartiles {low:.1f} to {high:.1f}, "
            f"fastest {min(each):.1f}"
        )
    for what, ratios in (
        ("a bare loop", found.ratios("bare")),
        ("bare evaluation", found.evaluation_ratios()),
    ):
        low, middle, high = quantiles(ratios, n=4)
        print(f"speed relative to {what}: {middle:.3f} (quartiles {low:.3f} to {high:.3f})")
    print(machine())


def main() -> None:
    """Measure what the command says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("tokens", "steps"))
    parser.add_argument("--sentences", type=int, default=400_000)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--processor", action="store_true", help="time the processor, not the wall")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        {"tokens": tokens, "steps": steps}[args.what](args, Path(name))


if __name__ == "__main__":
    main()
