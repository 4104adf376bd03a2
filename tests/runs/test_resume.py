"""Nothing lost: a run that is killed or stopped ends in the record of one that was not."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from debiasbench import Method, Task, hookimpl
from debiasbench.common import atomic
from debiasbench.common.errors import Interrupted, StoreError
from debiasbench.core.objective import CrossEntropy
from debiasbench.records.record import Record
from debiasbench.records.store import Store, read_predictions
from debiasbench.runs import provenance
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.training import batch_size, checkpoint, stage_store
from tests.conftest import ACME, Toy, ToyPlugin, offering
from tests.running import run as run_spec


@dataclass(frozen=True)
class ByLast(Toy):
    """The toy data set, of whose runs the weights of the very last step are kept and compared."""

    def load(self, root: Path) -> Task:
        return replace(super().load(root), select="last")


class ByLastPlugin:
    @hookimpl
    def debiasbench_register_datasets(self, register: Callable[..., None]) -> None:
        register("by-last", ByLast)


PLUGINS = [(ToyPlugin(), ACME), (ByLastPlugin(), ACME)]


@pytest.fixture
def plugins() -> Plugins:
    return Plugins(PLUGINS)


METHODS = ("erm", "upweight", "groupdro", "jtt", "lff", "dfr", "rest")


def run(*args: Any, **kwargs: Any) -> Any:
    """Run a spec and keep the weights, whose digest the record then holds."""
    return run_spec(*args, keep_weights=True, **kwargs)


def spec_of(plugins: Plugins, method: str, **more: Any) -> Any:
    settings: dict[str, Any] = {
        "dataset": "by-last",
        "model": "mlp",
        "training": {"epochs": 3},
    }
    return make_spec(plugins, method=method, **{**settings, **more})


def essence(record: Record, folder: Path) -> dict[str, Any]:
    """All of a record that training decides: not the seconds, nor when it was."""
    plain = asdict(record)
    cost = plain.pop("cost")
    plain.pop("provenance")
    timeless = ("parameters", "active_parameters", "density", "inference_flops", "training_flops")
    found = {k: v for k, v in plain.items() if k != "predictions"}
    found |= {k: cost[k] for k in timeless}
    found["stages"] = [
        {k: s[k] for k in ("name", "epochs", "steps", "flops")} for s in cost["stages"]
    ]
    assert record.weights is not None
    path = Store(folder).path(record.spec)
    for split in ("val", "test"):
        predicted = read_predictions(path, record, "last", split)
        found[split] = {name: values.tolist() for name, values in predicted.items()}
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


class Stopping:
    """A watcher that stops the run after some steps, by a signal."""

    def __init__(self, after: int) -> None:
        self.left = after

    def start(self, stage: str, steps: int) -> None: ...

    def advance(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    def finish(self) -> None: ...


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sparse", [None, "rigl"])
def test_a_run_stopped_again_and_again_ends_in_the_same_record(
    plugins: Plugins, tmp_path: Path, method: str, sparse: str | None
) -> None:
    if method == "rest" and sparse:
        pytest.skip("rest is sparse by itself")
    more: dict[str, Any] = {"sparse": sparse, "sparse_options": {"density": 0.2}} if sparse else {}
    assert_stops_leave_no_trace(spec_of(plugins, method, **more), plugins, tmp_path)


@pytest.mark.parametrize("method", ["rest", "lff"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_half_precision_goes_on_with_its_scale(
    plugins: Plugins, tmp_path: Path, method: str, precision: str
) -> None:
    spec = spec_of(plugins, method, training={"epochs": 3, "precision": precision})
    assert_stops_leave_no_trace(spec, plugins, tmp_path)


def test_a_run_in_parts_goes_on_in_the_same_ones(plugins: Plugins, tmp_path: Path) -> None:
    spec = spec_of(plugins, "jtt", training={"epochs": 3, "micro_batch": 5})
    assert_stops_leave_no_trace(spec, plugins, tmp_path)


def test_a_spec_that_leaves_its_parts_open_is_resolved_before_it_has_an_id(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([7, 5, 100, 100])  # of both stages, the first time and the second
    monkeypatch.setattr(batch_size, "fitting", lambda *_: next(sizes))
    open_spec = spec_of(plugins, "jtt", training={"epochs": 3, "micro_batch": "auto"})
    parts = spec_of(plugins, "jtt", training={"epochs": 3, "micro_batch": 5})
    whole = spec_of(plugins, "jtt", training={"epochs": 3})
    for expected, folder in ((parts, "parts"), (whole, "whole")):
        done = run(open_spec, plugins, results=tmp_path / folder, data_root=tmp_path)
        assert done.record.spec == expected
        assert done.record.id == expected.id
    with pytest.raises(StopIteration):
        next(sizes)


class Diverging(CrossEntropy):
    """Becomes NaN after some batches."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.left = 9

    def forward(self, batch: Any) -> torch.Tensor:
        self.left -= 1
        loss = super().forward(batch)
        return loss * float("nan") if self.left < 0 else loss


class Diverges(Method):
    """Fails in the middle of an epoch."""

    def fit(self, lab: Any) -> Any:
        return lab.train(Diverging(lab.model()), name="train")


def test_of_a_run_that_failed_the_last_good_checkpoint_is_kept_until_it_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_store, "SHARE", 1e9)  # a checkpoint after every step
    plugins = Plugins([*PLUGINS, (offering(diverges=Diverges), ACME)])
    spec = spec_of(plugins, "diverges")
    failed = run_spec(spec, plugins, results=tmp_path, data_root=tmp_path, device="cpu",
                      checkpoint_every=0.0).record  # fmt: skip
    assert failed.failure is not None
    assert failed.failure.step == 9
    (kept,) = (tmp_path / stage_store.FOLDER).glob(f"*/{stage_store.RUNNING}")
    state = checkpoint.load(kept)
    assert state["at"]["step"] == 9
    assert all(value.isfinite().all() for value in state["objective"].values())
    assert stage_store.weight(tmp_path / stage_store.FOLDER) >= kept.stat().st_size
    assert stage_store.collect(tmp_path / stage_store.FOLDER, limit=0) == [kept.parent]


def assert_stops_leave_no_trace(spec: Any, plugins: Plugins, tmp_path: Path) -> None:
    """Stop a run every seven steps; it ends in the record of one that was left alone."""
    whole = run(spec, plugins, results=tmp_path / "whole", data_root=tmp_path, device="cpu")
    stops = 0
    while True:
        try:
            parts = run(
                spec, plugins, results=tmp_path / "parts", data_root=tmp_path, device="cpu",
                interruptible=True, progress=Stopping(after=7),
            )  # fmt: skip
            break
        except Interrupted:
            stops += 1
    assert stops >= 3
    assert essence(parts.record, tmp_path / "parts") == essence(whole.record, tmp_path / "whole")
    assert list((tmp_path / "parts" / stage_store.FOLDER).glob(f"*/{stage_store.RUNNING}*")) == []


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from debiasbench.training import stage_store
from debiasbench.core.objective import CrossEntropy
from debiasbench.specs.plugins import Plugins
from tests.runs.test_resume import run
from tests.runs.test_resume import PLUGINS, spec_of

stage_store.SHARE = 1e9  # a checkpoint after every step
plugins = Plugins(PLUGINS)
spec = spec_of(plugins, {method!r})
moments, killed = random.Random(0), 0
def whole():
    run(spec, plugins, results=Path({root!r}), data_root=Path("."), device="cpu",
        checkpoint_every=0.0)
for _ in range(20):
    child = os.fork()  # of a process without threads, which has imported torch already
    if child == 0:
        whole()
        os._exit(0)
    time.sleep(moments.uniform(0, 0.5))
    os.kill(child, signal.SIGKILL)
    killed += os.waitpid(child, 0)[1] == signal.SIGKILL
whole()
print(killed)
"""


@pytest.mark.parametrize("method", ["rest", "jtt"])
def test_killed_at_ten_moments_it_ends_in_the_record_of_one_that_was_not(
    plugins: Plugins, tmp_path: Path, method: str
) -> None:
    here = str(Path(__file__).parent.parent.parent)
    code = KILLS.format(tests=here, root=str(tmp_path / "killed"), method=method)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    spec = spec_of(plugins, method)
    whole = run(spec, plugins, results=tmp_path / "whole", data_root=tmp_path, device="cpu")
    killed = Store(tmp_path / "killed").load(spec)
    assert killed is not None
    assert essence(killed, tmp_path / "killed") == essence(whole.record, tmp_path / "whole")


def stopped(plugins: Plugins, results: Path, after: int = 12, **more: Any) -> Any:
    """Begin a run and stop it; return its spec."""
    spec = spec_of(plugins, "erm", **more)
    with pytest.raises(
        Interrupted, match=rf"in stage 'train' after {after} of 30 steps: run the same"
    ):
        run(
            spec, plugins, results=results, data_root=results, device="cpu",
            interruptible=True, progress=Stopping(after),
        )  # fmt: skip
    return spec


def checkpoints(results: Path) -> list[Path]:
    return sorted((results / stage_store.FOLDER).glob(f"*/{stage_store.RUNNING}*"))


def steps_taken(plugins: Plugins, spec: Any, results: Path) -> tuple[Record, int]:
    """Run a spec; return its record and the optimizer steps that were taken for it just now."""
    taken = []
    step = torch.optim.SGD.step

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        taken.append(1)
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", counting)
        done = run(spec, plugins, results=results, data_root=results, device="cpu")
    return done.record, len(taken)


def test_what_is_left_of_a_stopped_run_is_all_that_is_trained(
    plugins: Plugins, tmp_path: Path
) -> None:
    spec = stopped(plugins, tmp_path)
    assert steps_taken(plugins, spec, tmp_path)[1] == 30 - 12


def test_a_truncated_checkpoint_is_named_and_the_one_before_is_taken(
    plugins: Plugins, tmp_path: Path
) -> None:
    spec = stopped(plugins, tmp_path)
    [running] = checkpoints(tmp_path)
    checkpoint.save(running, checkpoint.load(running))  # now there is one before
    running.write_bytes(running.read_bytes()[:-5])
    with pytest.warns(UserWarning, match=r"running: its checksum differs.*ignored"):
        assert steps_taken(plugins, spec, tmp_path)[1] == 18


def test_without_any_whole_checkpoint_the_stage_begins_anew(
    plugins: Plugins, tmp_path: Path
) -> None:
    spec = stopped(plugins, tmp_path)
    [running] = checkpoints(tmp_path)
    running.write_bytes(b"of another version")
    with pytest.warns(UserWarning, match="no checkpoint of this version"):
        record, taken = steps_taken(plugins, spec, tmp_path)
    assert taken == 30
    whole = run(spec, plugins, results=tmp_path / "whole", data_root=tmp_path, device="cpu")
    assert essence(record, tmp_path) == essence(whole.record, tmp_path / "whole")


@pytest.mark.parametrize("other", [{"seed": 1}, {"training": {"epochs": 3, "lr": 0.01}},
                                   {"model_options": {"hidden": [7]}}])  # fmt: skip
def test_another_spec_does_not_take_the_checkpoint(
    plugins: Plugins, tmp_path: Path, other: dict[str, Any]
) -> None:
    stopped(plugins, tmp_path)
    assert steps_taken(plugins, spec_of(plugins, "erm", **other), tmp_path)[1] == 30


def test_a_stage_that_another_method_trained_is_taken_up_and_said_to_be(
    plugins: Plugins, tmp_path: Path
) -> None:
    erm, _ = steps_taken(plugins, spec_of(plugins, "erm"), tmp_path)
    dfr, taken = steps_taken(plugins, spec_of(plugins, "dfr"), tmp_path)
    assert taken == 0
    assert erm.cost is not None
    assert dfr.cost is not None
    assert [s["reused"] for s in erm.cost.stages] == [False]
    assert dfr.cost.stages[0]["reused"]
    alone = run(
        spec_of(plugins, "dfr"), plugins, results=tmp_path / "alone", data_root=tmp_path,
        device="cpu",
    ).record  # fmt: skip
    assert essence(dfr, tmp_path) == essence(alone, tmp_path / "alone")


def test_what_did_not_follow_the_rules_serves_no_run_that_must(
    plugins: Plugins, tmp_path: Path
) -> None:
    steps_taken(plugins, spec_of(plugins, "dfr"), tmp_path)
    record, taken = steps_taken(plugins, spec_of(plugins, "erm"), tmp_path)
    assert taken == 30
    assert "val_unbiased" in record.outcomes


def test_a_changed_model_or_another_augmentation_takes_up_nothing(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(plugins, "erm")
    assert steps_taken(plugins, spec, tmp_path / "a")[1] == 30
    shutil.copytree(tmp_path / "a" / stage_store.FOLDER, tmp_path / "b" / stage_store.FOLDER)
    assert steps_taken(plugins, spec, tmp_path / "b")[1] == 0
    for folder in ("c", "d"):
        shutil.copytree(tmp_path / "a" / stage_store.FOLDER, tmp_path / folder / stage_store.FOLDER)
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "_code", lambda top: f"{top}, changed")
        assert steps_taken(plugins, spec, tmp_path / "c")[1] == 30
    other = spec_of(plugins, "erm", dataset_options={"ratio": 0.150001})  # the same samples
    assert steps_taken(plugins, other, tmp_path / "d")[1] == 30


def test_the_code_of_a_plugin_is_known_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plugin_of_mine.py"
    file.write_text("class A: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("plugin_of_mine").A()
    before = provenance.code(mine)
    assert before == provenance.code(mine) != provenance.code()
    file.write_text("class A: x = 1\n")
    provenance._code.cache_clear()
    assert provenance.code(mine) != before


def test_overwriting_trains_again(plugins: Plugins, tmp_path: Path) -> None:
    spec = spec_of(plugins, "erm")
    run(spec, plugins, results=tmp_path, data_root=tmp_path, device="cpu")
    seen: list[int] = []

    class Watch(Stopping):
        def advance(self) -> None:
            seen.append(1)

    run(
        spec, plugins, results=tmp_path, data_root=tmp_path, device="cpu", overwrite="always",
        progress=Watch(0),
    )  # fmt: skip
    assert len(seen) == 30


def test_two_that_need_the_same_stage_train_it_once(plugins: Plugins, tmp_path: Path) -> None:
    specs = [spec_of(plugins, "erm"), spec_of(plugins, "dfr")]
    held = threading.Event()
    keep = stage_store.StageStore(tmp_path / "s", identity={}, run="a")

    def hold() -> None:
        with keep.open("train", {"x": 1}, shared=True) as kept:
            held.set()
            time.sleep(0.3)
            kept.finish({"value": 1})

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(hold)
        held.wait()
        with stage_store.StageStore(tmp_path / "s", identity={}, run="b").open(
            "train", {"x": 1}, shared=True
        ) as kept:
            found = kept.finished()
        waiting.result()
    assert found is not None
    assert (found["value"], found["run"]) == (1, "a")
    assert specs[0].id != specs[1].id


def test_a_full_disk_stops_the_run_with_everything_that_was_good(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = stopped(plugins, tmp_path)
    before = checkpoints(tmp_path)[0].read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        with pytest.raises(StoreError, match=r"No space left .* the same command then resumes"):
            run(
                spec, plugins, results=tmp_path, data_root=tmp_path, device="cpu",
                checkpoint_every=0.0,
            )  # fmt: skip
    assert checkpoints(tmp_path)[0].read_bytes() == before
    assert steps_taken(plugins, spec, tmp_path)[1] == 18


def faulty(kind: str) -> Callable[..., Any]:
    """Write as a bad disk would: an error, or half of the bytes without a word."""
    write = Path.open

    def opened(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = write(self, mode, *args, **kwargs)
        if mode != "wb" or not self.name.endswith(".new"):
            return file
        real = file.write

        class Wrapped:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, content: bytes) -> int:
                if kind == "error":
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return int(real(content[: len(content) // 2]))

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        return Wrapped()

    return opened


def test_short_writes_lose_no_more_than_the_checkpoint(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_store, "SHARE", 1e9)
    spec = stopped(plugins, tmp_path, after=11)
    whole = run(spec, plugins, results=tmp_path / "whole", data_root=tmp_path, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", faulty("short"))
        with pytest.raises(Interrupted):
            run(
                spec, plugins, results=tmp_path, data_root=tmp_path, device="cpu",
                checkpoint_every=1e9, interruptible=True, progress=Stopping(5 + 11),
            )  # fmt: skip
    with pytest.warns(UserWarning, match="its checksum differs"):
        record, taken = steps_taken(plugins, spec, tmp_path)
    assert taken == 30 - 11  # what the short write was to add is lost, no more
    assert essence(record, tmp_path) == essence(whole.record, tmp_path / "whole")


def test_finished_stages_that_were_used_longest_ago_go_first(tmp_path: Path) -> None:
    keep = stage_store.StageStore(tmp_path, identity={}, run="a")
    for i in range(4):
        with keep.open(f"s{i}", {"x": i}, shared=True) as kept:
            kept.finish({"weights": torch.zeros(1000)})
    found = stage_store.all_in(tmp_path)
    for age, stage in enumerate(found):
        os.utime(stage.folder / stage_store.FINISHED, (1000 - age, 1000 - age))
    order = [stage.name for stage in stage_store.all_in(tmp_path)]
    size = found[0].bytes
    assert len(stage_store.collect(tmp_path, limit=2 * size + 10)) == 2
    assert [stage.name for stage in stage_store.all_in(tmp_path)] == order[:2]


def test_stages_that_are_of_use_to_no_other_run_go_with_the_record(
    plugins: Plugins, tmp_path: Path
) -> None:
    spec = spec_of(plugins, "groupdro")
    run(spec, plugins, results=tmp_path, data_root=tmp_path, device="cpu")
    assert stage_store.all_in(tmp_path / stage_store.FOLDER) == []
    run(spec_of(plugins, "erm"), plugins, results=tmp_path, data_root=tmp_path, device="cpu")
    [kept] = stage_store.all_in(tmp_path / stage_store.FOLDER)
    assert (kept.name, kept.run) == ("train", spec_of(plugins, "erm").id)


def test_checkpoints_take_a_small_part_of_the_time(tmp_path: Path) -> None:
    keep = stage_store.StageStore(tmp_path, identity={}, run="a", every=0.0)
    with keep.open("s", {}, shared=True) as kept:
        begun = time.monotonic()
        kept.checkpoint({"x": torch.zeros(100_000)})
        taken = time.monotonic() - begun
        assert not kept.is_due()
        assert kept._next - time.monotonic() > 20 * taken


def test_a_checkpoint_of_another_stage_is_not_taken(plugins: Plugins, tmp_path: Path) -> None:
    spec = stopped(plugins, tmp_path)
    other = replace(spec, seed=spec.seed + 1)
    assert steps_taken(plugins, other, tmp_path)[1] == 30


def test_the_command_line_lists_stages_and_makes_room(
    debiasbench: Callable[..., Result], tmp_path: Path
) -> None:
    words = ("--dataset", "toy", "--model", "mlp", "--quiet")
    for seed in (0, 1):
        assert debiasbench("run", "--method", "erm", *words, "--seed", seed).exit_code == 0
    listed = debiasbench("cache", "ls").output
    assert "2 stages" in listed
    assert listed.count("train ") == 2
    assert "0 stages removed" in debiasbench("cache", "gc").output
    assert debiasbench("cache", "gc", "--limit", "much").exit_code == 2
    assert "2 stages removed" in debiasbench("cache", "gc", "--limit", "0").output
    assert "0 stages" in debiasbench("cache", "ls").output


TOLD = """
import sys
from debiasbench.cli import main
from debiasbench.cli.progress import Bar
Bar.advance = lambda self, count=1: print("step", flush=True)
main(sys.argv[1:])
"""


def test_a_terminated_command_says_that_it_can_go_on(tmp_path: Path) -> None:
    words = ["run", "--method", "erm", "--epochs", "500", "--results", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-c", TOLD, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "step\n"
        process.terminate()
        _, told = process.communicate()
    assert process.returncode == 75, told
    assert "in stage 'train' after " in told
    assert "run the same command again to continue" in told
    assert "Traceback" not in told
    assert len(checkpoints(tmp_path)) == 1


def test_augmentation_goes_on_as_it_would_have(plugins: Plugins, tmp_path: Path) -> None:
    def shifted(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        return x + 0.1 * torch.rand(x.shape, generator=rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ByLast, "augmentation", lambda self: shifted)
        spec = stopped(plugins, tmp_path / "parts", after=13)
        record, taken = steps_taken(plugins, spec, tmp_path / "parts")
        whole = run(spec, plugins, results=tmp_path / "whole", data_root=tmp_path, device="cpu")
    plain = run(spec, plugins, results=tmp_path / "plain", data_root=tmp_path, device="cpu")
    assert taken == 17
    assert essence(record, tmp_path / "parts") == essence(whole.record, tmp_path / "whole")
    assert whole.record.weights != plain.record.weights
