"""A run whose process is killed or terminated loses nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from debiasbench.records.store import Store
from debiasbench.specs.plugins import Plugins
from tests import warm
from tests.running import QUICK
from tests.runs.resume.stopping import checkpoints, essence, run, spec_of

pytestmark = pytest.mark.slow

# sparse; two stages; two networks and a switch; own batches; a second stream; an optimizer that
# goes on; gates, then fixed masks
# method -> most changes of files before a kill; a method with more steps has as many kills so
METHODS = {
    "rest": 25,
    "jtt": 26,
    "disent": 26,
    "lisa": 25,
    "divdis": 25,
    "masktune": 26,
    "dcwp": 44,
}

KILLS = """
import json, os, random, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from debiasbench.training import stage_store
from debiasbench.specs.plugins import Plugins
from tests.running import QUICK
from tests.runs.resume.stopping import PLUGINS, run, spec_of

stage_store.SHARE = 1e9  # a checkpoint after every step
plugins, moments = Plugins(PLUGINS), random.Random(0)


def dies_at(moment, root):
    # kill this process just before it changes a file for the moment-th time
    left = moment

    def hook(event, arguments):
        nonlocal left
        changes = {"os.mkdir", "os.rename", "os.remove"}
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            changes.add("open")
        if event in changes and str(arguments[0]).startswith(root):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def train(method, root):
    run(spec_of(plugins, method, method_options=QUICK.get(method, {})), plugins,
        results=Path(root), data_root=Path("."), device="cpu",
        checkpoint_every=0.0)


def kills_until_done(method, most, root):
    train(method, root + "-before")  # imports what is imported late: kills are to hit training
    for kills in range(100):
        moment = moments.randint(1, most)
        child = os.fork()  # of a process without threads
        if child == 0:
            dies_at(moment, root)
            train(method, root)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status != signal.SIGKILL:
            assert status == 0, status
            return kills


root, method, most = sys.argv[1:]
print(json.dumps(kills_until_done(method, int(most), root)))
"""


@pytest.mark.parametrize("method", METHODS)
def test_killed_at_ten_moments_it_ends_in_the_record_of_one_that_was_not(
    plugins: Plugins, tmp_path: Path, method: str
) -> None:
    folder = tmp_path / "killed"
    done = warm.run(KILLS, folder, method, METHODS[method])
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)
    assert kills is not None, "it never ended: nothing was resumed"
    assert kills >= 10
    spec = spec_of(plugins, method, method_options=QUICK.get(method, {}))
    whole = run(spec, plugins, results=tmp_path / "whole", data_root=tmp_path, device="cpu")
    record = Store(folder).load(spec)
    assert record is not None
    assert essence(record, folder) == essence(whole.record, tmp_path / "whole")


TOLD = """
import sys
from debiasbench.cli import main
from debiasbench.common.display import Lines
Lines.advance = lambda self, count=1: print("step", file=sys.__stdout__, flush=True)
main(sys.argv[1:])
"""


def test_a_terminated_command_says_that_it_can_go_on(tmp_path: Path) -> None:
    words = ["run", "--method", "erm", "--epochs", "500", "--results", str(tmp_path)]
    with warm.Process(TOLD, *words) as process:
        process.wait_for("step\n")
        process.terminate()
        code, told = process.wait(), process.stderr
    assert code == 75, told
    assert "in stage 'train' after " in told
    assert "run the same command again to continue" in told
    assert "Traceback" not in told
    assert len(checkpoints(tmp_path)) == 1
