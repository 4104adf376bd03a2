"""What a machine with a GPU can do, in three parts with a time limit each.

    python benchmarks/gpu.py runs --data-root DATA --out OUT [--seconds 330] [--small]
    python benchmarks/gpu.py grid --data-root DATA --out OUT [--seconds 330] [--small]
    python benchmarks/gpu.py methods --out OUT [--seconds 330] [--small]

`runs` trains REST and ERM on coloured MNIST, alone and eight at once, and compares accuracies and
bits with steps that are not replayed; then it times steps of several networks beside a graph that
is written by hand, topology updates, and ways to share a device. `grid` trains the suite
rest-cmnist several runs at once until the time is over; its records can be published, and the same
command continues. `methods` trains every method briefly on digits, with and without graphs, and
says which of them fail, are not replayed, or end in other predictions.

The figures wanted most come first, and each is written to OUT as soon as it is there: tables to
OUT/gpu.md, raw values to OUT/gpu.json, records to folders of OUT. If DATA has no MNIST (see
`debiasbench data prepare cmnist`), random images are used, and accuracies have no meaning.
`--small` does everything with little data on any machine, to check that it works.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import torch
from gpu_steps import bare_step, engine_step, update_time
from tabulate import tabulate

from debiasbench import Dataset, Session, Task, hookimpl, option
from debiasbench.common.errors import DebiasbenchError, Interrupted
from debiasbench.common.progress import Progress
from debiasbench.core.data import Split
from debiasbench.measure.forecast import forecast
from debiasbench.measure.pace import paces
from debiasbench.records.store import Run, read_all
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.registry import Origin
from debiasbench.specs.spec import Spec
from debiasbench.specs.suites import read

SMALL = {"train": 300, "test": 64}
TOGETHER = 8
SEEDS = (41, 42, 43)
BRIEF: dict[str, dict[str, Any]] = {  # methods that take many steps whatever the run is
    "cnc": {"max_epoch": 1, "target_sample_ratio": 0.05},
    "dcwp": {"pruning_iter": 100, "lr_prune": 0.1},
    "eiil": {"inference_steps": 200},
}


@dataclass(frozen=True)
class Noise(Dataset):
    """Random images; the speed does not depend on their content."""

    side: int = option(32, "width and height in pixels", ge=8)
    train: int = option(20_000, "training images", ge=10)
    test: int = option(
        10_000, "test images; the same number of validation images, at most 5,000", ge=10
    )

    def load(self, root: Path) -> Task:
        """Create the images."""
        rng = torch.Generator().manual_seed(0)

        def split(n: int) -> Split:
            shape = (n, 3, self.side, self.side)
            x = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
            label = torch.arange(n) % 10
            bias = torch.where(torch.rand(n, generator=rng) < 0.05, 9 - label, label)
            return Split(x, label, bias, num_biases=10)

        names = tuple("0123456789")
        splits = split(self.train), split(min(5000, self.test)), split(self.test)
        return Task(*splits, names, names, torch.eye(10).bool())


class NoisePlugin:
    """Registers `noise`."""

    @hookimpl
    def debiasbench_register_datasets(self, register: Callable[..., None]) -> None:
        register("noise", Noise)


class Report:
    """The measurements so far, written to files after each part so that none is lost."""

    def __init__(self, out: Path, seconds: float) -> None:
        self._out, self._begun, self._limit = out, time.perf_counter(), seconds
        self.raw: dict[str, Any] = {}
        self._parts: list[str] = []
        out.mkdir(parents=True, exist_ok=True)

    @property
    def left(self) -> float:
        """Seconds until the time limit."""
        return self._limit - (time.perf_counter() - self._begun)

    def add(self, title: str, measure: Callable[[], tuple[str, Any]], needs: float) -> None:
        """Measure a part that takes about `needs` seconds, if there is time; write the files."""
        if self.left < needs:
            text, self.raw[title] = f"Left out: {self.left:.0f} s were left.", None
        else:
            try:
                text, self.raw[title] = measure()
            except Exception as error:
                text, self.raw[title] = f"Failed: {type(error).__name__}: {error}", None
        self._parts.append(f"## {title}\n\n{text}\n")
        (self._out / "gpu.json").write_text(json.dumps(self.raw, indent=1, default=str))
        (self._out / "gpu.md").write_text("\n".join(self._parts))
        print(f"[{time.perf_counter() - self._begun:.0f} s]\n{self._parts[-1]}", flush=True)


class Measurements:
    """All parts of `runs`; `data`: folder of data sets, `out`: folder of records."""

    def __init__(self, data: Path, out: Path, *, small: bool) -> None:
        self.small, self.out, self._data = small, out, data
        self.plugins = Plugins([(NoisePlugin(), Origin("benchmarks", "1"))])
        self.real = not small and has_mnist(self.plugins, data)
        self.together = 2 if small else TOGETHER

    def session(self, folder: str, **settings: Any) -> Session:
        """Open a session whose records go to a folder of `out`."""
        return Session(
            self.plugins, results=self.out / folder, data_root=self._data, progress=None, **settings
        )

    def specs(
        self, session: Session, method: str, seeds: Sequence[int], epochs: int = 100
    ) -> list[Spec]:
        """Return runs as in the suite rest-cmnist, at density 0.05 and ratio 5 %."""
        own = {"density": 0.05, "update_every": 1000, "weight": 10.0, "stop": 1.0}
        dataset, options = ("cmnist", {"ratio": 0.05}) if self.real else ("noise", {"side": 28})
        if self.small:
            options, epochs = {"side": 28, **SMALL}, 2
            own["update_every"] = 3
        settings = {"epochs": epochs, "batch_size": 256, "lr": 0.01, "schedule": "plateau"}
        return [
            session.spec(
                method,
                dataset,
                dataset_options=options,
                model="cnn",
                method_options=own if method == "rest" else None,
                training=settings,
                seed=seed,
            )
            for seed in seeds
        ]

    def alone(self, method: str) -> tuple[str, Any]:
        """Train one run, from loading the data to the record."""
        with self.session("alone") as session:
            begun = time.perf_counter()
            run = session.run(self.specs(session, method, SEEDS[:1])[0], overwrite="always")
            whole = time.perf_counter() - begun
        return self._told([run], whole)

    def method(self, name: str) -> tuple[str, Any]:
        """Train a method on digits, replayed and computed; say what differs."""
        digests, found = [], {}
        for graphs in (True, False):
            how = "replayed" if graphs else "computed"
            try:
                with self.session(f"methods-{how}", graphs=graphs, deterministic=True) as session:
                    spec = session.spec(
                        name,
                        "digits",
                        method_options=BRIEF.get(name),
                        training={"epochs": 1 if self.small else 3},
                    )
                    record = session.run(spec, overwrite="always").record
            except Exception as error:
                found[how] = f"{type(error).__name__}: {error}"
                continue
            stages = [] if record.cost is None else record.cost.stages
            digests.append(record.predictions["sha256"] if record.predictions else "")
            found[how] = f"{record.status}, {sum(stage['seconds'] for stage in stages):.1f} s"
            eager = sorted({stage["eager"] for stage in stages if stage["eager"]})
            if graphs and eager:
                found["not replayed"] = "; ".join(eager)
        equal = len(digests) == 2 and digests[0] == digests[1]
        found["predictions"] = "equal" if equal else "differ"
        return ". ".join(f"{what}: {how}" for what, how in found.items()), found

    def begun(self) -> tuple[str, Any]:
        """Let torch start the device and select kernels, which is done once in a process."""
        begun = time.perf_counter()
        with self.session("begun") as session:
            for method in ("rest", "erm"):
                session.run(self.specs(session, method, (7,), epochs=1)[0], overwrite="always")
        seconds = time.perf_counter() - begun
        return f"{seconds:.1f} s for an epoch of REST and one of ERM.", seconds

    def at_once(self, method: str) -> tuple[str, Any]:
        """Train several runs at once."""
        with self.session("together") as session:
            specs = self.specs(session, method, range(41, 41 + self.together))
            begun = time.perf_counter()
            done = checked(session.run_many(specs, overwrite="always"))
            whole = time.perf_counter() - begun
        return self._told(done, whole)

    def _told(self, runs: Sequence[Run], whole: float) -> tuple[str, Any]:
        seconds = [run.record.cost.training_seconds for run in runs if run.record.cost is not None]
        stages = [s for run in runs if run.record.cost is not None for s in run.record.cost.stages]
        eager = sorted({s["eager"] for s in stages if s["eager"]})
        steps = stages[0]["steps"]
        accuracy = list(map(unbiased, runs))
        raw = {"training": seconds, "whole": whole, "unbiased": accuracy}
        text = (
            f"{len(runs)} run(s): {fmean(seconds):.2f} s of training each, "
            f"{1e6 * fmean(seconds) / steps:.0f} us a step; {whole / len(runs):.2f} s each from "
            f"loading to the record. Unbiased test accuracy {spread(accuracy)}."
        )
        return text + (f" Computed without a graph: {'; '.join(eager)}" if eager else ""), raw

    def equal_accuracy(self, epochs: int) -> tuple[str, Any]:
        """Compare replayed runs, runs at once and computed runs over the same seeds."""
        raw: dict[str, list[float]] = {}
        for name, graphs in (("computed", False), ("replayed", True), ("at once", True)):
            with self.session(f"accuracy-{name.replace(' ', '-')}", graphs=graphs) as session:
                specs = self.specs(session, "rest", SEEDS, epochs)
                if name == "at once":
                    runs = checked(session.run_many(specs, overwrite="always"))
                else:
                    runs = [session.run(spec, overwrite="always") for spec in specs]
                raw[name] = [unbiased(run) for run in runs]
        rows = [[name, spread(values)] for name, values in raw.items()]
        for name in ("replayed", "at once"):
            difference = [a - b for a, b in zip(raw[name], raw["computed"], strict=True)]
            half = 4.303 * stdev(difference) / len(difference) ** 0.5  # t with 2 degrees of freedom
            rows.append(
                [f"{name} - computed", f"{100 * fmean(difference):.2f} +- {100 * half:.2f}"]
            )
        return f"{epochs} epochs of REST, {len(SEEDS)} seeds, unbiased test accuracy in %\n\n" + (
            tabulate(rows, tablefmt="pipe", headers=["steps", "mean and spread"])
        ), raw

    def equal_bits(self) -> tuple[str, Any]:
        """Train twice with deterministic algorithms, and once with an interruption."""
        digests = {}
        for name in ("first", "second", "interrupted"):
            shutil.rmtree(self.out / f"bits-{name}", ignore_errors=True)
            stop = Stopping(after=2 if self.small else 300)
            more: dict[str, Any] = {"deterministic": True, "interruptible": True}
            with self.session(f"bits-{name}", **more) as session:
                spec = self.specs(session, "rest", SEEDS[:1], epochs=10)[0]
                if name == "interrupted":
                    session.watch(stop)
                    try:
                        session.run(spec, keep_weights=True)
                    except Interrupted as error:
                        session.watch(None)
                        digests["stopped at"] = str(error)
                record = session.run(spec, keep_weights=True).record
            digests[name] = (record.weights or {}).get("sha256", "no weights")
        equal = len({digests[name] for name in ("first", "second", "interrupted")}) == 1
        stopped = digests.get("stopped at", "no run was interrupted")
        return (
            f"Three deterministic runs are {'equal' if equal else 'NOT equal'} bit for bit "
            f"({stopped})."
        ), digests

    def steps(self) -> tuple[str, Any]:
        """Time steps computed, replayed, at once, and of a graph that is written by hand."""
        kinds = [("cnn", 28, 256), ("resnet18", 32, 256), ("resnet18", 128, 256)]
        kinds += [("resnet18", 224, 256), ("resnet50", 224, 128)]
        rows, raw = [], []
        for model, side, batch in [("cnn", 28, 32)] if self.small else kinds:
            with self.session("steps") as session, self.session("steps", graphs=False) as plain:
                # many steps in an epoch, whose end waits for the device
                images = (128 if side <= 32 else 8) * batch
                more = SMALL if self.small else {"train": images, "test": batch}
                spec = session.spec(
                    "erm",
                    "noise",
                    dataset_options={"side": side, **more},
                    model=model,
                    training={"batch_size": batch},
                )
                computed = engine_step(plain, spec)
                engine = engine_step(session, spec)
                bare = bare_step(session, spec)
                ratio = median(b / a for a, b in zip(engine.seconds, bare.seconds, strict=True))
                shown = [computed, engine, bare]
                rows.append(
                    [
                        f"{model} {side}",
                        batch,
                        *(f"{1e6 * median(each.seconds):,.0f}" for each in shown),
                        f"{ratio:.3f}",
                        f"{100 * engine.share_of_peak:.0f} %",
                    ]
                )
                raw.append({name: asdict(each) for name, each in zip("cgb", shown, strict=True)})
        head = ["network", "batch", "computed, us", "replayed, us", "by hand, us"]
        return tabulate(
            rows, headers=[*head, "by hand / replayed", "of matmul peak"], tablefmt="pipe"
        ), raw

    def numbers(self) -> tuple[str, Any]:
        """Measure how many runs at once are fastest."""
        with self.session("steps") as session:
            spec = self.specs(session, "rest", SEEDS[:1])[0]
            found = paces(session, spec, (1, 2) if self.small else (1, 2, 4, 8, 16))
        rows = [[p.together, f"{1e6 / p.steps_per_second:.0f}"] for p in found]
        return tabulate(rows, headers=["runs at once", "us a step of one"], tablefmt="pipe"), [
            asdict(p) for p in found
        ]

    def updates(self) -> tuple[str, Any]:
        """Time topology updates, and masking inside of steps."""
        rows, raw = [], []
        for model in ("cnn",) if self.small else ("cnn", "resnet18"):
            found = update_time(self.plugins, model, steps=4 if self.small else 20)
            with self.session("steps") as session:
                options = {"side": 32, **(SMALL if self.small else {"train": 32768, "test": 64})}
                times = [
                    engine_step(
                        session,
                        session.spec(
                            "erm",
                            "noise",
                            dataset_options=options,
                            model=model,
                            training={"batch_size": 32 if self.small else 256},
                            sparse=sparse,
                        ),
                    )
                    for sparse in (None, "static")
                ]
            masking = median(times[1].seconds) / median(times[0].seconds)
            waits = "" if found.waits is None else found.waits
            rows.append([model, f"{1000 * found.seconds:.2f}", waits, f"{masking:.3f}"])
            raw.append({**asdict(found), "masking": masking})
        head = ["network", "update, ms", "waits for the device", "masked / dense step"]
        return tabulate(rows, headers=head, tablefmt="pipe"), raw

    def roads(self, epochs: int) -> tuple[str, Any]:
        """Compare ways to share a device: at once in one process, processes, and MPS."""
        epochs = 2 if self.small else epochs
        suite = self.out / "roads.toml"
        seeds = list(range(self.together))
        suite.write_text(
            'name = "roads"\ndescription = "ways to share a device"\nsource = "none"\n[base]\n'
            f'method = "rest"\ndataset = "{"cmnist" if self.real else "digits"}"\nmodel = "cnn"\n'
            f'"train.batch_size" = 256\n"train.epochs" = {epochs}\n[grid]\nseed = {seeds}\n'
        )
        n = str(self.together)
        raw: dict[str, float] = {}
        for road, way in (("one process, at once", "--together"), ("processes", "--jobs")):
            try:
                raw[road] = self._sweep(suite, way, n)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                raw[road] = float("nan")
                print(f"{road}: {error}", flush=True)
        if shutil.which("nvidia-cuda-mps-control") and not self.small:
            try:
                raw["processes with MPS"] = self._with_mps(suite, n)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                raw["processes with MPS"] = float("nan")
                print(f"MPS: {error}", flush=True)
        rows = [[name, f"{s:.1f}", f"{s / len(seeds):.2f}"] for name, s in raw.items()]
        return (
            f"{len(seeds)} runs of REST, {epochs} epochs, with the start of all processes\n\n"
            + tabulate(rows, headers=["road", "seconds", "seconds a run"], tablefmt="pipe")
        ), raw

    def _with_mps(self, suite: Path, n: str) -> float:
        """Time a sweep of processes while NVIDIA's Multi-Process Service runs."""
        places = {
            "CUDA_MPS_PIPE_DIRECTORY": str(self.out / "mps"),
            "CUDA_MPS_LOG_DIRECTORY": str(self.out / "mps"),
        }
        (self.out / "mps").mkdir(exist_ok=True)
        environment = {**os.environ, **places}
        subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True, env=environment)
        try:
            return self._sweep(suite, "--jobs", n, **places)
        finally:
            subprocess.run(
                ["nvidia-cuda-mps-control"],
                env=environment,
                input=b"quit\n",
                check=False,
                timeout=30,
            )

    def _sweep(self, suite: Path, *words: str, **environment: str) -> float:
        """Return the seconds of a sweep in a process of its own."""
        folder = self.out / f"roads{'-'.join(words)}{len(environment)}"
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "-m", "debiasbench", "sweep", str(suite), "--results"]
        begun = time.perf_counter()
        done = subprocess.run(
            [*command, str(folder), "--data-root", str(self._data), "--quiet", *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=150,
            env={**os.environ, "DEBIASBENCH_PLUGINS": "0", **environment},
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-500:])
        return time.perf_counter() - begun


class Stopping(Progress):
    """Stops a run after some steps, as a signal of a scheduler would."""

    def __init__(self, after: int) -> None:
        self._left = after

    def advance(self, count: int = 1) -> None:
        """Count steps."""
        before, self._left = self._left, self._left - count
        if before > 0 >= self._left:
            os.kill(os.getpid(), signal.SIGTERM)


def has_mnist(plugins: Plugins, data: Path) -> bool:
    """Return whether coloured MNIST can be made from the files in `data`."""
    try:
        plugins.datasets["cmnist"].load()().load(data)
    except DebiasbenchError:
        return False
    return True


def checked(outcomes: Sequence[Run | DebiasbenchError]) -> list[Run]:
    """Return runs; raises the error of one that failed."""
    for outcome in outcomes:
        if isinstance(outcome, DebiasbenchError):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, Run)]


def unbiased(run: Run) -> float:
    """Return the unbiased test accuracy of the last epoch."""
    return run.record.outcomes["last"].test.metrics["unbiased"]


def spread(values: Sequence[float]) -> str:
    """Return the mean and the standard deviation in %."""
    deviation = f" +- {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.2f}{deviation}"


def measure_runs(report: Report, m: Measurements) -> None:
    """Measure all parts of `runs`, those wanted most first."""
    n = m.together
    report.add("First use of the device", m.begun, 10)
    for method in ("rest", "erm"):
        report.add(f"{method.upper()}, one run alone", partial(m.alone, method), 15)
        report.add(f"{method.upper()}, {n} at once", partial(m.at_once, method), 50)
    report.add("Equal bits", m.equal_bits, 15)
    report.add("Accuracy of replayed steps", lambda: m.equal_accuracy(10), 40)
    report.add("Numbers of runs at once", m.numbers, 20)
    report.add("Topology updates", m.updates, 15)
    report.add("Steps", m.steps, 40)
    report.add("Ways to share the device", lambda: m.roads(20), 60)


def sweep_grid(report: Report, m: Measurements, data: Path, out: Path) -> None:
    """Train the grid of REST on coloured MNIST until the time is over."""
    name = "rest-cmnist"
    suite = read(name)

    def predicted() -> tuple[str, Any]:
        with m.session("forecast") as session:
            precision = session.execution.numerics().precision
            specs = suite.specs(m.plugins, precision=precision)
            specs = specs[:1] if m.small else specs
            together = m.together
            found = forecast(session, specs, stand_ins=suite.stand_ins, together=together)
        hours = sum(f.runs * f.seconds for f in found) / 3600
        runs = sum(f.runs for f in found)
        return f"{runs} runs of {name}, {together} at once: {hours:.2f} hours.", [
            asdict(f) for f in found
        ]

    def trained() -> tuple[str, Any]:
        folder = out / name
        words = ["--together", "2" if m.small else "auto", "--data-root", str(data)]
        file: str | Path = name
        if m.small:
            file = out / "small.toml"
            file.write_text(
                'name = "small"\ndescription = "d"\nsource = "s"\n[base]\nmethod = "rest"\n'
                'dataset = "digits"\ntrain.epochs = 1\n[grid]\nseed = [1, 2, 3]\n'
            )
        command = [sys.executable, "-m", "debiasbench", "sweep", str(file), "--results"]
        begun = time.perf_counter()
        process = subprocess.Popen([*command, str(folder), *words, "--quiet"])
        try:
            process.wait(timeout=max(1.0, report.left - 20))
        except subprocess.TimeoutExpired:
            process.terminate()  # it writes checkpoints
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
        seconds = time.perf_counter() - begun
        records = [record for _, record in read_all([folder])[0]]
        costs = [r.cost.training_seconds for r in records if r.cost is not None]
        each = f"{fmean(costs):.2f} s of training each" if costs else "none finished"
        return f"{len(records)} records in {seconds:.0f} s, {each}.", costs

    report.add("Forecast", predicted, 20)
    report.add("Records", trained, 30)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["runs", "grid", "methods"])
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="data sets")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder to write")
    parser.add_argument("--seconds", type=float, default=330.0, help="time limit")
    parser.add_argument("--small", action="store_true", help="few steps, small data: only a check")
    args = parser.parse_args()
    report = Report(args.out / args.part, args.seconds)
    m = Measurements(args.data_root, args.out / args.part, small=args.small)
    with m.session("machine") as session:
        hardware = session.execution.hardware
    machine = (
        f"{hardware}, torch {torch.__version__}, Python {sys.version.split()[0]}; "
        f"`python benchmarks/gpu.py {' '.join(sys.argv[1:])}`; "
        f"{'MNIST' if m.real else 'random images'}"
    )
    report.add("Machine", lambda: (machine, {}), 0)
    if args.part == "runs":
        measure_runs(report, m)
    elif args.part == "methods":
        for name in Plugins([]).methods:
            report.add(name, partial(m.method, name), 10)
    else:
        sweep_grid(report, m, args.data_root, args.out / args.part)


if __name__ == "__main__":
    main()
