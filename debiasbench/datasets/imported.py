"""The user's own data, as `debiasbench data import` left them under the data root."""

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
    """Your own images, as `debiasbench data import` left them."""

    citation: ClassVar[str] = "Your own data: cite where they come from."
    source: ClassVar[str] = "`debiasbench data import NAME --images FOLDER`"

    name: str = option("", "the name under which the images were imported")
    digest: str = option("", "checksum that the data must have; empty: whichever is there")

    def load(self, root: Path) -> Task:
        """Images of the size and in the splits that the import wrote, mapped from the disk.

        Every byte is compared with its checksum. Raises `DataError` if nothing was imported under
        the name, or it is damaged, or not what `digest` says.
        """
        from debiasbench.files import task_folder

        folder = where(root, self.name)
        if folder is None:
            raise DataError(missing(root, self.name))
        try:
            found = task_folder.facts(folder)["digest"]
            if self.digest and found != self.digest:
                raise DataError(
                    f"{folder} holds other data (checksum {found[:16]}…) than asked for "
                    f"({self.digest[:16]}…): import those again, or leave dataset.digest out"
                )
            return task_folder.load(folder)
        except task_folder.DamagedTask as error:
            raise DataError(f"{error}. {again(self.name)}") from error
