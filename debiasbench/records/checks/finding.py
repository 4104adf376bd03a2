"""A finding: what is wrong with a record, in a sentence, with the code of the check."""

from __future__ import annotations

from dataclasses import dataclass

CODES = {
    "E00": "the folder of a submission holds what it must hold, and nothing else",
    "E01": "the record can be read, its id is the hash of its spec, its file has the spec's name",
    "E02": "the predictions are those that the record was written with, and none is missing",
    "E03": "classes and groups are those of all records on the same data",
    "E04": "hits follow from predictions, and all other numbers from hits",
    "E05": "each selection rule keeps the best epoch",
    "E06": "all required seeds are there, and no others",
    "E07": "no two seeds share predictions or losses, in a submission",
    "E08": "the settings are those of the suite, except for the method",
    "E09": "supervision and options are those that the method declares",
    "E10": "the versions are usable and the code had no changes that were not committed",
    "E11": "the trials of a search are those that it draws, and its winner follows from them",
    "W01": "the cost is plausible",
    "W02": "the result is near that of the existing record of the same spec",
    "W03": "the predictions are not those of another method",
    "W04": "no two seeds share predictions or losses; those of some methods do not depend on it",
    "W05": "no training of a submission failed",
    "W06": "the data of a submission that names a suite have reference labels",
}
"""Code -> what is true of a record without this finding. E is an error, W needs a look."""


@dataclass(frozen=True)
class Finding:
    """What a check found: its code, one of `CODES`, and a sentence."""

    code: str
    message: str

    @property
    def is_error(self) -> bool:
        """Whether the record must not be used."""
        return self.code.startswith("E")

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
