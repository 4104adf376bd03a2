"""Time and memory of tables over whole sets of records, made here from templates.

    python benchmarks/many_records.py make FOLDER --records 10000 [--samples 450 2000]
    python benchmarks/many_records.py measure FOLDER [--rounds 3] [--kept CACHE] [--site]

`make` writes valid records with predictions: 20 data sets, five seeds a row, three different epochs
among the selection rules, failed runs, and records without predictions. `measure` calls the command
`debiasbench leaderboard` in new processes: first without an index, then with one, and prints
seconds, CPU seconds (of all its processes), peak memory (of the largest) and the load of the
machine. `--kept CACHE`: use the indexes of this folder, and leave out the first call. `--site`:
write a site, too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from safetensors.numpy import save

from debiasbench.core.supervision import Supervision
from debiasbench.records.beside import PREDICTIONS, sha256
from debiasbench.records.metrics import METRICS, GroupCounts, accuracies_of
from debiasbench.records.record import (
    Cost,
    Curves,
    Failure,
    Outcome,
    Provenance,
    Record,
    SplitResult,
    TaskFacts,
    to_json,
)
from debiasbench.records.selection import RULES, USES_GROUPS
from debiasbench.specs.spec import Choice, Spec

DATASETS = 20
SEEDS = 5
EPOCHS = 20
KEPT = (7, 12, EPOCHS)  # epochs with predictions; all others are worse
VARIANTS = 8  # different results of a method and seed on a data set
METHODS = {
    "erm": Supervision(),
    "lff": Supervision(),
    "rest": Supervision("conflict", "none"),
    "groupdro": Supervision("groups", "select"),
}


@dataclass(frozen=True)
class Data:
    """A made-up data set: its facts, and (N,) classes and groups of each split."""

    name: str
    task: TaskFacts
    y: dict[str, Any]
    group: dict[str, Any]

    @classmethod
    def number(cls, i: int, test: int) -> Data:
        """Make the i-th: 10 classes and 10 biases if i is even, otherwise 2 and 2."""
        rng = np.random.default_rng(i)
        side = 10 if i % 2 == 0 else 2
        aligned = np.eye(side, dtype=bool)
        sizes = {"train": 4 * test, "val": max(test // 2, side * side), "test": test}
        group = {
            split: rng.permutation(np.arange(n) % (side * side)).astype(np.uint8)
            for split, n in sizes.items()
        }
        counts = {s: np.bincount(g, minlength=side * side).tolist() for s, g in group.items()}
        names = [f"c{j}" for j in range(side)]
        task = TaskFacts(
            classes=names,
            biases=[f"b{j}" for j in range(side)],
            aligned=aligned.tolist(),
            metric="unbiased",
            select="val_unbiased",
            group_counts=counts,
            fingerprint=sha256(f"made {i} {test}".encode()),
        )
        y = {split: (g // side).astype(np.uint8) for split, g in group.items()}
        return cls(f"made{i:02}", task, y, group)


def specs(number: int) -> Iterator[tuple[int, Spec, Supervision]]:
    """Yield the number of the data set, the spec and the supervision of each record."""
    for k in range(number):
        dataset, row = k % DATASETS, k // (DATASETS * SEEDS)
        seed = k // DATASETS % SEEDS
        method = list(METHODS)[row % len(METHODS)]
        options = {} if method == "erm" else {"density": 0.05, "every": 10 + row}
        training = {"epochs": EPOCHS, "batch_size": 256, "lr": 0.001 * (1 + row // 4)}
        spec = Spec(
            dataset=Choice(f"made{dataset:02}", {"ratio": 0.05}),
            model=Choice("cnn", {"width": 16}),
            method=Choice(method, options),
            training=training,
            seed=seed,
            revisions={"rules": 2},
        )
        yield dataset, spec, METHODS[method]


def record(data: Data, spec: Spec, supervision: Supervision, k: int) -> tuple[Record, bytes | None]:
    """Make a record and the content of its predictions file; every 500th run failed."""
    rng = np.random.default_rng([k, spec.seed])
    base: dict[str, Any] = {
        "id": spec.id,
        "spec": spec,
        "supervision": supervision,
        "task": data.task,
        "provenance": PROVENANCE,
    }
    if k % 500 == 499:
        failure = Failure("NonFiniteLoss", "The loss became NaN", "train", 12, math.inf)
        return Record(status="failed", failure=failure, **base), None
    skill = 0.5 + 0.4 * np.random.default_rng(hash_of(spec)).random()
    stored: dict[str, Any] = {}
    counted: dict[tuple[str, int], list[int]] = {}
    for split in ("val", "test"):
        y, group = data.y[split], data.group[split]
        stored |= {f"{split}.y": y, f"{split}.group": group}
        for epoch in KEPT:
            right = rng.random(len(y)) < skill + 0.005 * epoch
            stored[f"{split}.epoch_{epoch}"] = np.where(right, y, (y + 1) % len(data.task.classes))
            groups = len(data.task.group_counts[split])
            counted[split, epoch] = np.bincount(group[right], minlength=groups).tolist()
    metrics = {}
    for split in ("val", "test"):
        counts: GroupCounts = data.task.splits[split]
        tables = np.array([counted[split, e] for e in KEPT]).reshape(-1, *counts.totals.shape)
        for epoch, values in zip(KEPT, accuracies_of(tables, counts), strict=True):
            metrics[split, epoch] = values
    outcomes = {}
    for rule, metric in RULES.items():
        epoch = EPOCHS
        if metric is not None:
            epoch = max(KEPT, key=lambda e: _preferred(metrics["val", e], rule, metric, e))
        results = {s: SplitResult(counted[s, epoch], metrics[s, epoch]) for s in ("val", "test")}
        value = math.nan if metric is None else metrics["val", epoch][metric]
        outcomes[rule] = Outcome(epoch, value, results["val"], results["test"])
    curves = {"loss": [round(1 / (e + 1) + 1e-3 * rng.random(), 6) for e in range(EPOCHS)]}
    for name in METRICS:
        kept = {e: float(f"{metrics['val', e][name]:.6g}") for e in KEPT}
        curves[f"val_{name}"] = [kept.get(e + 1, 0.0) for e in range(EPOCHS)]
    content = save({name: np.ascontiguousarray(array) for name, array in stored.items()})
    stage = {"name": "train", "epochs": EPOCHS, "flops": 1e12, "seconds": 30.0 + spec.seed}
    cost = Cost(35.0, 30.0 + spec.seed, 500.0, 9 << 20, 1000, 1000, 1.0, 2e7, 1e12, [stage])
    made = Record(
        status="ok",
        outcomes=outcomes,
        cost=cost,
        predictions={"file": f"{spec.stem}{PREDICTIONS}", "sha256": sha256(content)},
        curves=[Curves("train", curves)],
        **base,
    )
    return made, content


def _preferred(values: dict[str, float], rule: str, metric: str, epoch: int) -> tuple[float, ...]:
    """Return what a rule maximises, as `Tracker` does: only some rules read bias labels."""
    return values[metric], values["unbiased"] if rule in USES_GROUPS else 0.0, epoch


def hash_of(spec: Spec) -> int:
    """Return a number that all seeds of a row share."""
    return int(sha256(json.dumps([spec.method.options, spec.dataset.name]).encode())[:8], 16)


PROVENANCE = Provenance(
    plugins={"dataset": "acme 1.0", "model": "debiasbench 0.1.0", "method": "debiasbench 0.1.0"},
    versions={"python": "3.11.7", "torch": "2.15.0", "debiasbench": "0.1.0"},
    device="cuda",
    hardware="a machine",
    deterministic=True,
    git=None,
    started="2026-11-23T00:00:00+00:00",
)


def make(folder: Path, number: int, samples: list[int]) -> None:
    data = [Data.number(i, samples[i // 2 % len(samples)]) for i in range(DATASETS)]
    for one in data:
        (folder / one.name).mkdir(parents=True, exist_ok=True)
    made: dict[tuple[int, str, int, bool, int], tuple[Record, str, bytes | None]] = {}
    for k, (i, spec, supervision) in enumerate(specs(number)):
        # rows share predictions and hits, which take most of the time to make
        key = i, spec.method.name, spec.seed, k % 500 == 499
        variant = (k // (DATASETS * SEEDS * len(METHODS))) % VARIANTS
        if (*key, variant) not in made:
            first, content = record(data[i], spec, supervision, k)
            made[*key, variant] = first, to_json(first), content
        first, text, content = made[*key, variant]
        path = folder / data[i].name / f"{spec.stem}.json"
        path.write_text(_renamed(text, first, spec))
        if content is not None and k % 1000 != 998:
            path.with_name(spec.stem + PREDICTIONS).write_bytes(content)
    print(f"{number:,} records in {folder}")


def _renamed(text: str, first: Record, spec: Spec) -> str:
    """Give the JSON of a record another spec."""
    begin, end = text.index('\n "spec": {'), text.index('\n "status": ')
    written = json.dumps(asdict(spec), sort_keys=True)
    return f'{text[:begin]}\n "spec": {written},{text[end:]}'.replace(first.id, spec.id)


def called(folder: Path, cache: str, *words: str) -> tuple[float, float, float]:
    """Return seconds, CPU seconds and MB of a call in a new process."""
    before = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "debiasbench", "leaderboard", str(folder), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "DEBIASBENCH_CACHE": cache, "OMP_NUM_THREADS": "1"},
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert isinstance(used, resource.struct_rusage)
    seconds = time.perf_counter() - before
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


def measure(folder: Path, rounds: int, kept: str | None, site: bool) -> None:
    firsts, later, sites = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as own:
            cache = kept or f"{own}/cache"
            if kept is None:
                firsts.append(called(folder, cache))
            later += [called(folder, cache) for _ in range(2)]
            if site:
                sites.append(called(folder, cache, "--site", f"{own}/site"))
    for name, figures in (("first call", firsts), ("later calls", later), ("site", sites)):
        if not figures:
            continue
        took, cpu, memory = zip(*figures, strict=True)
        spread = f"{min(took):.2f} to {max(took):.2f}"
        print(
            f"{name:<12} {median(took):7.2f} s ({spread}) {median(cpu):7.2f} s of CPU "
            f"{max(memory):7,.0f} MB"
        )
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("make")
    one.add_argument("folder", type=Path)
    one.add_argument("--records", type=int, default=1000)
    one.add_argument("--samples", type=int, nargs="+", default=[450, 1000])
    two = commands.add_parser("measure")
    two.add_argument("folder", type=Path)
    two.add_argument("--rounds", type=int, default=3)
    two.add_argument("--kept", metavar="CACHE")
    two.add_argument("--site", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.folder, arguments.records, arguments.samples)
    else:
        measure(arguments.folder, arguments.rounds, arguments.kept, arguments.site)


if __name__ == "__main__":
    main()
