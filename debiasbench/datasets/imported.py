"""The user's own data, imported under the data root with `debiasbench data import`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debiasbench.common.errors import DataError
from debiasbench.common.options import option
from debiasbench.core.data import Dataset, Task
from debiasbench.files.importing.folder import again, missing, where


@dataclass(frozen=True)
class Imported(Dataset):
    """Your own images, texts or tables, imported with `debiasbench data import`."""

    citation: ClassVar[str] = "Your own data: cite their source."
    source: ClassVar[str] = "`debiasbench data import NAME`"

    name: str = option("", "name of the import")
    digest: str = option("", "expected checksum of the data; empty: not checked")

    def load(self, root: Path) -> Task:
        """The samples and splits as they were imported, memory-mapped from the disk.

        Every byte is compared with its checksum. Raises `DataError` if nothing was imported under
        this name, the data are damaged, or their checksum is not `digest`.
        """
        from debiasbench.files import task_folder

        folder = where(root, self.name)
        if folder is None:
            raise DataError(missing(root, self.name))
        try:
            digest = task_folder.facts(folder)["digest"]
            if self.digest and digest != self.digest:
                raise DataError(
                    f"{folder} contains other data (checksum {digest[:16]}…) than requested "
                    f"({self.digest[:16]}…). Import the requested data again, or leave out "
                    "dataset.digest"
                )
            return task_folder.load(folder)
        except task_folder.DamagedTask as error:
            raise DataError(f"{error}. {again(self.name)}") from error
