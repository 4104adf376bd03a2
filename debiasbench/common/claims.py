"""`Claim`: a lock for file systems without file locks, a file that its holder renews."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from filelock import SoftFileLease, Timeout

if TYPE_CHECKING:
    from pathlib import Path

# processes that share a folder must agree on this
LEASE = 120.0  # seconds after which a claim that was not renewed is void
BEAT = 30.0  # seconds between renewals


def slurm_job() -> str:
    """Return the Slurm job of this process, such as "123_4" for a task of an array, or ""."""
    array = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}"
    for form in (array, "{SLURM_JOB_ID}"):
        with suppress(KeyError):
            if re.fullmatch(r"\d+(_\d+)?", job := form.format_map(os.environ)):
                return job
    return ""


class Claim:
    """A file with the host, process id, start time and Slurm job of its holder.

    A thread of the holder renews the file. The claim of a dead process on the same host is void at
    once. The claim of another host is void if it was watched for `LEASE` seconds and not renewed;
    no clocks of different hosts are compared.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lease = SoftFileLease(path, lease_duration=LEASE, heartbeat_interval=BEAT)

    def acquire(self) -> bool:
        """Try to get the claim without waiting; raises `OSError` if the folder is not writable."""
        for _ in range(3):  # an attempt may only remove a void claim
            try:
                self._lease.acquire(timeout=0)
            except Timeout:
                if self.path.exists():
                    return False
            else:
                self._add_job()
                return True
        return False

    def _add_job(self) -> None:
        """Add a line to what filelock wrote, which leaves lines alone that it does not know."""
        if job := slurm_job():
            with suppress(OSError):
                file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
                os.write(file, f"job={job}\n".encode())
                os.close(file)

    def release(self) -> None:
        """Remove the file."""
        self._lease.release()

    def seems_void(self) -> bool:
        """Return whether the file looks old by the clock of this host; `acquire` decides."""
        try:
            return time.time() - self.path.stat().st_mtime > LEASE
        except OSError:
            return False
