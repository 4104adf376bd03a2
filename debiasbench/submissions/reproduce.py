"""Running a sample of a submission's records again, from their specs alone.

Whoever runs them executes the code of the submission, so this part decides nothing: it is given
specs, and writes records. `submissions.agreement` compares them, where that code is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError, RecordError
from debiasbench.common.seeds import derive
from debiasbench.specs.revisions import changed, renewed
from debiasbench.submissions.against import rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from debiasbench.records.record import Record
    from debiasbench.records.store import Run
    from debiasbench.runs.session import Session
    from debiasbench.specs.spec import Spec


def sample(records: Iterable[Record], nonce: str, number: int = 1) -> list[list[Record]]:
    """Choose `number` records of each row, and all that failed; return them by row.

    `nonce`: such as the commit of the merge, which nobody knows before the records are submitted.
    """
    chosen = []
    for row in rows(records).values():
        order = sorted(row, key=lambda record: derive(0, nonce, record.id))
        failed = [record for record in order[number:] if record.status == "failed"]
        chosen.append([*order[:number], *failed])
    return chosen


def need_empty(folder: Path) -> None:
    """Raise `OptionError` if a folder holds anything that a run could take for its own result."""
    if folder.exists() and any(folder.iterdir()):
        raise OptionError(
            f"--results {folder} is not empty: records and stages in it would not be run again. "
            "Give a new folder"
        )


def run_again(session: Session, specs: Iterable[Spec]) -> Iterator[Run]:
    """Run specs, and yield each run; raises `RecordError` for code of another revision."""
    for spec in specs:
        if changes := changed(spec, renewed(session.plugins, spec)):
            raise RecordError(
                f"{spec.stem}: the installed code has other revisions ({'; '.join(changes)})"
            )
        yield session.run(spec)
