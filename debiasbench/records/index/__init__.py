"""An index of a folder: what tables need of its records, so that only changed files are read."""

from debiasbench.records.index.columns import Damaged
from debiasbench.records.index.folder import ABSENT, Index, State, state
from debiasbench.records.index.places import Kept, boards_of, digest_of, kept, remove
from debiasbench.records.index.rows import Bad
from debiasbench.records.index.untouched import Unchanged, unchanged
from debiasbench.records.index.writing import results

__all__ = [
    "ABSENT",
    "Bad",
    "Damaged",
    "Index",
    "Kept",
    "State",
    "Unchanged",
    "boards_of",
    "digest_of",
    "kept",
    "remove",
    "results",
    "state",
    "unchanged",
]
