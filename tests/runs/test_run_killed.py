"""A run in another process: killed, or busy with the spec that is asked for."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SLOW = """
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
sys.path.insert(0, {root!r})
from debiasbench import Method
from debiasbench.core.objective import CrossEntropy
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests.conftest import ACME, ToyPlugin, offering
from tests.running import run

class Speaks(CrossEntropy):
    step = 0
    def forward(self, batch: Any) -> Any:
        self.step += 1
        if self.step == 15:
            print("training", flush=True)
        return super().forward(batch)

@dataclass(frozen=True)
class Slow(Method):
    "Trains until it is killed."
    def fit(self, lab: Any) -> Any:
        return lab.train(Speaks(lab.model()), epochs={epochs}, name="train")

plugins = Plugins([(ToyPlugin(), ACME), (offering(slow=Slow), ACME)])
spec = make_spec(plugins, dataset="toy", method="slow")
done = run(spec, plugins, results=Path("results"), data_root=Path("."), device="cpu")
print(done.path)
"""


@contextmanager
def slow(folder: Path, epochs: int) -> Iterator[subprocess.Popen[str]]:
    """Start a run of `epochs` epochs in another process; it says "training" after 15 steps."""
    script = folder / f"slow_{epochs}.py"
    script.write_text(SLOW.format(root=str(Path(__file__).parent.parent.parent), epochs=epochs))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until_training(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n", process.communicate()


def test_a_run_that_is_killed_leaves_no_record_and_nothing_in_the_way(tmp_path: Path) -> None:
    with slow(tmp_path, epochs=100_000) as process:
        wait_until_training(process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    results = tmp_path / "results"
    assert sorted(p.name for p in results.iterdir()) == [".locks", ".stages"]

    with slow(tmp_path, epochs=2) as process:
        out, err = process.communicate()
    assert err == ""
    record = Path(out.splitlines()[-1])
    assert sorted(p.suffix for p in results.iterdir()) == ["", "", ".json", ".safetensors"]
    assert json.loads((tmp_path / record).read_text())["status"] == "ok"


def test_two_processes_on_one_spec_make_one_record(tmp_path: Path) -> None:
    with slow(tmp_path, epochs=100_000) as first:
        wait_until_training(first)
        with slow(tmp_path, epochs=2) as second:
            out, err = second.communicate()
    assert out == ""
    assert "BusyError" in err
    assert "is being run by another process" in err
    assert not list((tmp_path / "results").glob("*.json"))
