"""The commands of Slurm as far as `--on slurm` uses them, with processes of this machine as tasks.

`install(folder)` writes them into a folder that belongs on PATH. The state is in `folder/state`:
a task is a process that executes the script, and executes it again if it was queued again.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "scontrol", "scancel")


def install(folder: Path) -> dict[str, str]:
    """Write the commands; return the environment with which they are found."""
    (folder / "state").mkdir(parents=True)
    for name in COMMANDS:
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {folder} {name} "$@"\n')
        path.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def end_all(folder: Path) -> None:
    """Kill all tasks that are left, with their processes."""
    for file in (folder / "state").glob("*.pid"):
        _kill(int(file.read_text()))


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def sbatch(state: Path, words: list[str]) -> int:
    text = Path(words[-1]).read_text()
    (state / "script").write_text(text)
    if "--partition=none" in text:
        print("sbatch: error: invalid partition specified: none", file=sys.stderr)
        print(
            "sbatch: error: Batch job submission failed: Invalid partition name specified",
            file=sys.stderr,
        )
        return 1
    number = 7 + len(list(state.glob("job-*")))
    name = re.search("--job-name=(.*)", text)[1]  # type: ignore[index]
    (state / f"job-{number}").write_text(name)
    last = int(re.search(r"--array=0-(\d+)", text)[1])  # type: ignore[index]
    if not (state / "pending").exists():
        for task in range(last + 1):
            process = subprocess.Popen(
                [sys.executable, __file__, state.parent, "task", str(number), str(task), words[-1]],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            (state / f"{number}_{task}.pid").write_text(str(process.pid))
    print(number)
    return 0


def task(state: Path, words: list[str]) -> int:
    number, which, script = words
    output = re.search('--output="(.*)"', Path(script).read_text())[1]  # type: ignore[index]
    log = Path(output.replace("%A", number).replace("%a", which))
    again, restart = state / f"{number}_{which}.again", 0
    while True:
        job = {
            "SLURM_JOB_ID": str(100 + int(which)),
            "SLURM_ARRAY_JOB_ID": number,
            "SLURM_ARRAY_TASK_ID": which,
        }
        if restart:
            job["SLURM_RESTART_COUNT"] = str(restart)
        with log.open("a") as file:
            bash = subprocess.Popen(
                ["bash", script], env={**os.environ, **job}, stdout=file, stderr=file
            )
            (state / f"{number}_{which}.bash").write_text(str(bash.pid))
            bash.wait()
        if not again.exists():
            break
        again.unlink()
        restart += 1
    (state / f"{number}_{which}.pid").unlink()
    return 0


def squeue(state: Path, words: list[str]) -> int:
    if (state / "broken").exists():
        print("slurm_load_jobs error: Unable to contact slurm controller", file=sys.stderr)
        return 1
    wanted = next(word.partition("=")[2] for word in words if word.startswith("--name="))
    for job in sorted(state.glob("job-*")):
        number = job.name.partition("-")[2]
        if job.read_text() == wanted:
            if (state / "pending").exists():
                print(f"{number}|PENDING|{(state / 'pending').read_text()}")
            for _ in state.glob(f"{number}_*.pid"):
                print(f"{number}|RUNNING|None")
    return 0


def scontrol(state: Path, words: list[str]) -> int:
    assert words[0] == "requeue"
    (state / f"{words[1]}.again").touch()
    return 0


def scancel(state: Path, words: list[str]) -> int:
    for file in state.glob(f"{words[-1]}_*.pid"):
        _kill(int(file.read_text()))
        file.unlink()
    return 0


def wait_until(what: object, seconds: float = 60.0) -> None:
    """Wait until a function returns something that is true."""
    assert callable(what)
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


if __name__ == "__main__":
    place, command, *rest = sys.argv[1:]
    raise SystemExit(globals()[command](Path(place) / "state", rest))
