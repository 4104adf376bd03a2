"""Global settings that other people's code changes are noticed and restored."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as modules
from torch.optim.optimizer import register_optimizer_step_post_hook

from debiasbench.common.global_state import restored


def nothing(*_arguments: object, **_options: object) -> None:
    """A hook."""


CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "matmul precision": (
        lambda: torch.set_float32_matmul_precision("medium"),
        "torch's float32 matmul precision",
    ),
    "tf32": (lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True), "cuda.matmul"),
    "cudnn tf32": (lambda: setattr(torch.backends.cudnn, "allow_tf32", False), "cudnn.conv"),
    "all precisions": (lambda: setattr(torch.backends, "fp32_precision", "tf32"), "fp32_precision"),
    "benchmark": (lambda: setattr(torch.backends.cudnn, "benchmark", True), "cudnn.benchmark"),
    "fp16 sums": (
        lambda: setattr(torch.backends.cuda.matmul, "allow_fp16_accumulation", True),
        "allow_fp16_accumulation",
    ),
    "dtype": (lambda: torch.set_default_dtype(torch.float64), "torch's default dtype"),
    "device": (lambda: torch.set_default_device("meta"), "torch's default device"),
    "grad": (lambda: torch.set_grad_enabled(False), "torch's gradient mode"),
    "anomaly": (lambda: torch.autograd.set_detect_anomaly(True), "torch's anomaly detection"),
    "autocast": (lambda: torch.autocast("cpu").__enter__(), "torch's autocast on cpu"),
    "autocast dtype": (
        lambda: torch.set_autocast_dtype("cpu", torch.float16),
        "torch's autocast on cpu",
    ),
    "deterministic": (
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        "torch's deterministic algorithms",
    ),
    "denormals": (lambda: torch.set_flush_denormal(True), "torch's flushing of denormal numbers"),
    "sdp": (lambda: torch.backends.cuda.enable_math_sdp(False), "enable_math_sdp"),
    "threads": (lambda: torch.set_num_threads(3), "torch's threads"),
    "forward hook": (
        lambda: modules.register_module_forward_hook(nothing),
        "hooks of all modules",
    ),
    "backward hook": (
        lambda: modules.register_module_full_backward_hook(nothing),
        "hooks of all modules",
    ),
    "optimizer hook": (
        lambda: register_optimizer_step_post_hook(nothing),
        "hooks of all optimizers",
    ),
    "numpy errors": (lambda: np.seterr(all="raise"), "numpy.seterr"),
    "warnings": (lambda: warnings.simplefilter("error", UserWarning), "warning filters"),
    "signals": (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), "signal handlers"),
    "variable": (
        lambda: os.environ.update(OMP_NUM_THREADS="7"),
        "the environment variable OMP_NUM_THREADS",
    ),
    "folder": (lambda: os.chdir("/"), "the current folder"),
    "umask": (lambda: os.umask(0o777), "the umask"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_named_and_undone(name: str) -> None:
    change, said = CHANGES[name]
    with warnings.catch_warnings():
        warnings.resetwarnings()
        with restored() as changes:
            change()
        assert any(said in each for each in changes.names), changes.names
        with restored() as again:
            pass  # a setting that was not restored could be read in another way
        assert again.names == []
        # torch refuses to read these if the older and newer names were left in contradiction
        assert torch.backends.cudnn.allow_tf32 is True
        assert torch.backends.cuda.matmul.allow_tf32 is False


def test_results_are_those_of_before_after_a_change() -> None:
    def trained() -> torch.Tensor:
        torch.manual_seed(0)
        network = nn.Linear(30, 30)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(3):
            with torch.autocast("cpu", torch.bfloat16):
                loss = network(torch.rand(8, 30)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return network.weight.detach()

    before = trained()
    for change, _ in CHANGES.values():
        with restored():
            change()
        assert torch.equal(trained(), before)


def test_filters_that_make_warnings_errors_are_put_back() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with restored() as changes:
            warnings.resetwarnings()
        assert "warning filters" in changes.names
        with pytest.raises(ResourceWarning):
            warnings.warn("a file was not closed", ResourceWarning, stacklevel=1)


def test_random_states_are_restored_without_mention() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    expected = draw()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.random.set_rng_state(states[2])
    with restored() as changes:
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
    assert changes.names == []
    assert draw() == expected


def test_code_that_changes_nothing_leaves_everything_as_it_is() -> None:
    with restored() as changes:
        with torch.no_grad(), torch.autocast("cpu"):
            nn.Linear(2, 2)(torch.rand(1, 2))
        warnings.filterwarnings("ignore", message="of a library that a plugin imports")
    assert changes.names == []
    assert warnings.filters[0][0] == "ignore"
    warnings.filters.pop(0)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_settings_count_from_the_moment_when_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from debiasbench.common.global_state import restored\n"
        "with restored() as none: pass\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "finders = list(sys.meta_path)\n"
        "with restored() as changes:\n"
        "    import torch\n"
        "    torch.set_float32_matmul_precision('high')\n"
        "    torch.set_num_threads(3)\n"
        "assert torch.get_float32_matmul_precision() == 'highest'\n"
        "assert sys.meta_path == finders\n"
        "print(none.names, changes.names)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith('[] ["torch\'s float32 matmul precision"')
    assert "torch's threads" in done.stdout
