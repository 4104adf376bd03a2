"""An index of a folder: what tables need of its records, so that only changed files are read."""

from debiasbench.records.index.columns import Damaged
from debiasbench.records.index.folder import ABSENT, Index, State, state
from debiasbench.records.index.places import Kept, kept, remove
from debiasbench.records.index.writing import results

__all__ = ["ABSENT", "Damaged", "Index", "Kept", "State", "kept", "remove", "results", "state"]
