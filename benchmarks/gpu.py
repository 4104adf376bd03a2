"""All measurements on a machine with a GPU, in one command of less than ten minutes.

    python benchmarks/gpu.py --data-root DATA --out OUT [--small]

Writes the tables to OUT/gpu.md and the raw seconds to OUT/gpu.json. If DATA has no MNIST (see
`debiasbench data prepare cmnist`), random images are used, and the accuracy has no meaning.
`--small` runs all parts in a few minutes on any machine, to check that they work.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F

from debiasbench import Dataset, Session, Task, hookimpl, option
from debiasbench.common.errors import DebiasbenchError
from debiasbench.core.data import Split
from debiasbench.core.model import Shape
from debiasbench.measure.bench import bench
from debiasbench.measure.forecast import forecast
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.registry import Origin
from debiasbench.specs.suites import read
from debiasbench.training.execution import Execution

SUITES = ("rest-cmnist", "rest-cifar10c", "rest-bffhq")
SMALL = {"train": 300, "test": 64}


@dataclass(frozen=True)
class Noise(Dataset):
    """Random images; the speed does not depend on their content."""

    side: int = option(32, "width and height in pixels", ge=8)
    train: int = option(20_000, "training images", ge=10)
    test: int = option(
        10_000, "test images; the same number of validation images, at most 1,000", ge=10
    )

    def load(self, root: Path) -> Task:
        """Create the images."""
        rng = torch.Generator().manual_seed(0)

        def split(n: int) -> Split:
            shape = (n, 3, self.side, self.side)
            x = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
            label = torch.arange(n) % 10
            return Split(
                x,
                label,
                torch.where(torch.rand(n, generator=rng) < 0.05, 9 - label, label),
                num_biases=10,
            )

        names = tuple("0123456789")
        return Task(
            split(self.train),
            split(min(1000, self.test)),
            split(self.test),
            names,
            names,
            torch.eye(10).bool(),
        )


class NoisePlugin:
    """Registers `noise`."""

    @hookimpl
    def debiasbench_register_datasets(self, register: Callable[..., None]) -> None:
        register("noise", Noise)


class Report:
    """The measurements so far, written to files after each part so that none is lost."""

    def __init__(self, out: Path) -> None:
        self._out, self._begun = out, time.perf_counter()
        self.raw: dict[str, Any] = {}
        self._parts: list[str] = []
        out.mkdir(parents=True, exist_ok=True)

    def add(self, title: str, text: str, raw: object) -> None:
        """Add a part and write the files."""
        self.raw[title] = raw
        self._parts.append(f"## {title}\n\n{text}\n")
        (self._out / "gpu.json").write_text(json.dumps(self.raw, indent=1, default=str))
        (self._out / "gpu.md").write_text("\n".join(self._parts))
        print(f"[{time.perf_counter() - self._begun:.0f} s]\n{self._parts[-1]}", flush=True)


def training_loop(plugins: Plugins, data: Path, has_mnist: bool, small: bool) -> tuple[str, Any]:
    """Compare debiasbench with a bare loop, in each precision, with and without compilation."""
    steps, rounds = (2, 1) if small else (30, 3)
    accelerated = torch.accelerator.is_available()
    precisions = ("fp32", "tf32", "bf16") if accelerated else ("fp32",)
    kinds: list[tuple[str, str, str, dict[str, object], int]] = [
        ("erm", "cnn", "cmnist" if has_mnist else "noise", {} if has_mnist else {"side": 28}, 256),
        ("rest", "cnn", "cmnist" if has_mnist else "noise", {} if has_mnist else {"side": 28}, 256),
        ("erm", "resnet18", "noise", {"side": 32}, 256),
        ("erm", "resnet18", "noise", {"side": 128, "train": 4000}, 128),
    ]
    rows, raw = [], []
    for method, model, dataset, base_options, batch in kinds:
        options = {**base_options, **SMALL} if small and dataset == "noise" else base_options
        for precision in precisions:
            for mode in ("off", "on", "graphs") if accelerated else ("off",):
                if mode != "off" and (precision != "bf16" or method == "rest"):
                    continue
                session = Session(plugins, data_root=data, compile=mode)
                try:
                    spec = session.spec(
                        method,
                        dataset,
                        dataset_options=options,
                        model=model,
                        method_options={"update_every": 16} if method == "rest" else None,
                        training={"batch_size": 16 if small else batch, "precision": precision},
                    )
                    report = bench(session, spec, steps=steps, rounds=rounds)
                except (DebiasbenchError, RuntimeError) as error:
                    rows.append([method, model, dataset, precision, mode, str(error)[:60]])
                    continue
                rows.append(
                    [
                        method,
                        model,
                        f"{dataset} {options.get('side', 28)}",
                        precision,
                        mode,
                        f"{report.images_per_second('engine'):,.0f}",
                        f"{median(report.ratios('bare')):.3f}",
                        f"{median(report.ratios('loader')):.1f}",
                        f"{100 * report.flops_per_second() / report.peak()[1]:.0f} %",
                        f"{median(report.evaluation_ratios()):.3f}",
                    ]
                )
                raw.append(asdict(report))
    head = [
        "method",
        "model",
        "images",
        "precision",
        "compile",
        "images/s",
        "of bare",
        "of DataLoader",
        "of matmul peak",
        "evaluation of bare",
    ]
    return tabulate(rows, headers=head, tablefmt="pipe"), raw


def whole_run(plugins: Plugins, data: Path, has_mnist: bool, small: bool) -> tuple[str, Any]:
    """Time whole runs of REST and ERM on CMNIST, 100 epochs, from loading to record."""
    dataset, options = ("cmnist", {"ratio": 0.05}) if has_mnist else ("noise", {"side": 28})
    if small:
        dataset, options = "noise", {"side": 28, **SMALL}
    rows, raw = [], {}
    usual = Execution.on().numerics().precision
    for method in ("rest", "erm"):
        for precision in dict.fromkeys((usual, "fp32")):
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                # a session for each run: a run's time includes loading its data
                session = Session(plugins, results=folder, data_root=data)
                spec = session.spec(
                    method,
                    dataset,
                    dataset_options=options,
                    model="cnn",
                    training={
                        "epochs": 1 if small else 100,
                        "batch_size": 256,
                        "lr": 0.01,
                        "precision": precision,
                    },
                )
                record = session.run(spec).record
                seconds = time.perf_counter() - begun
            assert record.cost is not None
            unbiased = record.outcomes["val_unbiased"].test.metrics["unbiased"]
            rows.append(
                [
                    method,
                    precision,
                    f"{seconds:.1f}",
                    f"{record.cost.training_seconds:.1f}",
                    f"{100 * unbiased:.1f}",
                ]
            )
            raw[f"{method} {precision}"] = {"seconds": seconds, "cost": asdict(record.cost)}
    head = ["method", "precision", "seconds", "of training", "unbiased %"]
    return f"{dataset}, cnn, batches of 256\n\n" + tabulate(rows, head, tablefmt="pipe"), raw


def grid(plugins: Plugins, data: Path, small: bool) -> tuple[str, Any]:
    """Forecast the whole grid of REST, with one run at a time."""
    rows, total, raw = [], 0.0, {}
    session = Session(plugins, data_root=data)
    precision = session.execution.numerics().precision
    for name in SUITES[:1] if small else SUITES:
        suite = read(name)
        specs = suite.specs(plugins, precision=precision)
        for f in forecast(session, specs, stand_ins=suite.stand_ins):
            hours = f.runs * f.seconds / 3600
            total += hours
            rows.append([name, f.runs, f"{f.seconds:.1f}", f"{hours:.2f}", f.problem or f.stand_in])
            raw[name] = asdict(f)
    table = tabulate(rows, ["suite", "runs", "seconds per run", "hours", "note"], tablefmt="pipe")
    return f"{table}\n\nTotal: {total:.2f} hours on this device.", raw


def packed(small: bool, out: Path) -> tuple[str, Any]:
    """Time many small runs of the `cnn` on one device, with a varying number of processes."""
    suite = out / "packed.toml"
    epochs, seeds, jobs = (1, 2, (1, 2)) if small else (10, 8, (1, 2, 4, 8))
    suite.write_text(
        'name = "packed"\ndescription = "many small runs"\nsource = "none"\n[base]\n'
        f'method = "erm"\ndataset = "digits"\nmodel = "cnn"\n"train.epochs" = {epochs}\n'
        f"[grid]\nseed = {list(range(seeds))}\n"
    )
    rows, raw = [], {}
    for n in jobs:
        with tempfile.TemporaryDirectory() as folder:
            line = [sys.executable, "-m", "debiasbench", "sweep", str(suite), "--results", folder]
            begun = time.perf_counter()
            subprocess.run(
                [*line, "--jobs", str(n), "--quiet"],
                check=True,
                capture_output=True,
                env={**os.environ, "DEBIASBENCH_PLUGINS": "0"},
            )
            seconds = time.perf_counter() - begun
        rows.append([n, f"{seconds:.1f}", f"{seeds / seconds:.2f}"])
        raw[str(n)] = seconds
    return (
        f"{seeds} runs of ERM on digits, epochs={epochs}, including the start of processes\n\n"
        + tabulate(rows, ["processes", "seconds", "runs/s"], tablefmt="pipe")
    ), raw


def stacked(plugins: Plugins, small: bool) -> tuple[str, Any]:
    """Time several seeds of the `cnn`, stacked by `torch.func` and one after the other."""
    device = Execution.on().device
    steps, counts = (2, (1, 2)) if small else (50, (1, 2, 4, 8, 16))
    x = torch.rand(64, 3, 28, 28, device=device)
    y = torch.arange(64, device=device) % 10
    entry, fixed = plugins.models.find("cnn")

    def network() -> nn.Module:
        built: nn.Module = entry.load()(**fixed).build(Shape(input=(3, 28, 28), classes=10))
        return built.to(device)

    def seconds(step: Callable[[], object]) -> float:
        for _ in range(5):
            step()
        synchronise()
        begun = time.perf_counter()
        for _ in range(steps):
            step()
        synchronise()
        return (time.perf_counter() - begun) / steps

    def synchronise() -> None:
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()

    def one_by_one(networks: list[nn.Module]) -> Callable[[], object]:
        optimizers = [torch.optim.SGD(n.parameters(), 0.01, momentum=0.9) for n in networks]

        def step() -> None:
            for net, optimizer in zip(networks, optimizers, strict=True):
                loss = F.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return step

    def together(networks: list[nn.Module]) -> Callable[[], object]:
        parameters, buffers = stack_module_state(networks)
        base = copy.deepcopy(networks[0])
        optimizer = torch.optim.SGD(list(parameters.values()), 0.01, momentum=0.9)

        def loss_of(p: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
            return F.cross_entropy(functional_call(base, (p, b), (x,)), y)

        def step() -> None:
            loss = torch.vmap(loss_of)(parameters, buffers).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    rows, raw = [], {}
    for count in counts:
        alone = seconds(one_by_one([network() for _ in range(count)]))
        try:
            joint = seconds(together([network() for _ in range(count)]))
        except RuntimeError as error:
            return f"torch.func cannot stack the cnn: {str(error)[:200]}", {}
        rows.append([count, f"{count / alone:.0f}", f"{count / joint:.0f}", f"{alone / joint:.2f}"])
        raw[str(count)] = [alone, joint]
    head = ["seeds", "steps/s one by one", "steps/s stacked", "ratio"]
    return "Batches of 64, 28x28, fp32\n\n" + tabulate(rows, head, tablefmt="pipe"), raw


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-root", type=Path, default=Path("data"), help="folder of data sets (default: data)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("gpu"), help="folder to write (default: gpu)"
    )
    parser.add_argument("--small", action="store_true", help="few steps, small data: only a check")
    args = parser.parse_args()
    data, small = args.data_root, args.small

    plugins = Plugins([(NoisePlugin(), Origin("benchmarks", "1"))])
    try:
        plugins.datasets["cmnist"].load()().load(data)
        has_mnist = not small
    except DebiasbenchError:
        has_mnist = False
    report = Report(args.out)
    report.add(
        "Machine",
        f"{Execution.on().hardware}, torch {torch.__version__}, Python "
        f"{sys.version.split()[0]}; `python benchmarks/gpu.py {' '.join(sys.argv[1:])}`",
        {},
    )
    report.add("A whole run", *whole_run(plugins, data, has_mnist, small))
    report.add("The training loop", *training_loop(plugins, data, has_mnist, small))
    report.add("REST's grid", *grid(plugins, data, small))
    report.add("Seeds in one network", *stacked(plugins, small))
    report.add("Parallel processes", *packed(small, args.out))


if __name__ == "__main__":
    main()
