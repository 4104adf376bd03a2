"""A run whose process is killed or terminated loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from debiasbench.records.store import Store
from debiasbench.specs.plugins import Plugins
from tests.runs.resume.stopping import (
    checkpoints,
    essence,
    run,
    spec_of,
)

KILLS = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from debiasbench.training import stage_store
from debiasbench.core.objective import CrossEntropy
from debiasbench.specs.plugins import Plugins
from tests.runs.resume.stopping import PLUGINS, run, spec_of

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
    here = str(Path(__file__).parents[3])
    code = KILLS.format(tests=here, root=str(tmp_path / "killed"), method=method)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    spec = spec_of(plugins, method)
    whole = run(spec, plugins, results=tmp_path / "whole", data_root=tmp_path, device="cpu")
    killed = Store(tmp_path / "killed").load(spec)
    assert killed is not None
    assert essence(killed, tmp_path / "killed") == essence(whole.record, tmp_path / "whole")


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
        [sys.executable, "-c", TOLD, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "step\n"
        process.terminate()
        _, told = process.communicate()
    assert process.returncode == 75, told
    assert "in stage 'train' after " in told
    assert "run the same command again to continue" in told
    assert "Traceback" not in told
    assert len(checkpoints(tmp_path)) == 1
