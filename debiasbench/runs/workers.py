"""Several processes of one command that share a results folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from debiasbench.common.processes import cores

if TYPE_CHECKING:
    from collections.abc import Sequence


def run_workers(arguments: Sequence[str], jobs: int) -> list[int]:
    """Run `jobs` processes of `debiasbench ARGUMENTS` at once; return their exit codes.

    The cores are divided between them, unless OMP_NUM_THREADS is set. SIGTERM and SIGINT are
    passed on to all processes.
    """
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    command = [sys.executable, "-m", "debiasbench", *arguments]
    workers = [subprocess.Popen(command, env=environment) for _ in range(jobs)]

    def pass_on(number: int, _frame: object) -> None:
        for worker in workers:
            worker.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return [worker.wait() for worker in workers]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
