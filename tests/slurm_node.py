"""A real Slurm with one node, from packages that are unpacked into a folder and not installed.

    python tests/slurm_node.py FOLDER

unpacks the packages of Debian 12 (Slurm 22.05; newer ones cannot run without authentication), and
`DEBIASBENCH_TEST_SLURM=FOLDER pytest tests/cli/test_real_slurm.py` then uses them. Nothing runs as
another user, and no file outside the folders is written.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins")
VARIABLE = "DEBIASBENCH_TEST_SLURM"  # of the environment, with the folder
CPUS = 4  # jobs at once, whatever the machine has

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
PluginDir={plugins}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={state}/controller
SlurmdSpoolDir={state}/node
SlurmctldPidFile={state}/controller.pid
SlurmdPidFile={state}/node.pid
SlurmctldLogFile={state}/controller.log
SlurmdLogFile={state}/node.log
ReturnToService=2
JobRequeue=1
KillWait=5
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP
"""


def unpack(folder: Path) -> None:
    """Download the packages with apt-get, and unpack them into a folder."""
    archives = folder / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    apt = ["apt-get", "--yes", "--quiet", "--download-only", "--no-install-recommends"]
    options = ["-o", f"Dir::Cache::archives={archives.absolute()}"]
    subprocess.run([*apt, *options, "install", *PACKAGES], check=True)
    for archive in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg", "-x", archive, folder], check=True)


def environment(folder: Path, state: Path) -> dict[str, str]:
    """Return what Slurm's commands need beside the usual environment."""
    libraries = next(folder.glob("usr/lib/*-linux-gnu"))
    paths = [str(libraries), str(libraries / "slurm-wlm"), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        "PATH": f"{folder / 'usr/bin'}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths)),
        "SLURM_CONF": str(state / "slurm.conf"),
    }


@contextmanager
def one_node(folder: Path, state: Path) -> Iterator[dict[str, str]]:
    """Start Slurm; yield the environment with which its commands find it."""
    own = environment(folder, state)
    for name in ("controller", "node"):
        (state / name).mkdir(parents=True)
    first, second = _free_ports()
    (state / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            plugins=next(folder.glob("usr/lib/*-linux-gnu/slurm-wlm")),
            state=state,
            controller=first,
            node=second,
            cpus=CPUS,
        )
    )
    programs = folder / "usr/sbin"
    step = programs / "slurmstepd-wlm"  # its path is compiled in, without -d
    daemons = [
        [programs / "slurmctld-wlm", "-c", "-D"],
        [programs / "slurmd-wlm", "-D", "-d", step],
    ]
    with (state / "output.log").open("wb") as log:
        running = [
            subprocess.Popen(daemon, env={**os.environ, **own}, stdout=log, stderr=log)
            for daemon in daemons
        ]
        try:
            _wait_until_idle(own, state)
            yield own
        finally:
            _end_jobs({**os.environ, **own})
            for daemon in reversed(running):
                daemon.terminate()
            for daemon in running:
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()


def _end_jobs(variables: dict[str, str]) -> None:
    """Cancel all jobs, and wait until their processes have ended."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for words in (["--full", "--signal=KILL"], []):
            subprocess.run(
                ["scancel", *words, "--partition=main"],
                env=variables,
                check=False,
                capture_output=True,
            )
        left = subprocess.run(
            ["squeue", "--noheader"], env=variables, check=False, capture_output=True
        )
        if not left.stdout.strip():
            return
        time.sleep(0.5)


def _wait_until_idle(own: dict[str, str], state: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        said = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"],
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            check=False,
        )
        if said.stdout.strip() == "idle":
            return
        time.sleep(0.2)
    logs = "\n".join(log.read_text() for log in sorted(state.glob("*.log")))
    raise RuntimeError(f"Slurm did not start: {said.stdout}{said.stderr}\n{logs}")


def _free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], other.getsockname()[1]]


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
