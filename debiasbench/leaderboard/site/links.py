"""Where things are: in a folder of pages, or in one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from debiasbench.leaderboard.site.names import file_name

if TYPE_CHECKING:
    from debiasbench.leaderboard.site.content import Place, View


DIGITS = 2  # of an id, which records on one page share


@dataclass(frozen=True)
class Links:
    """Addresses as a page of the site writes them.

    `up`: from the folder of the page to the root, such as "../". `single`: all is in one file, so
    pages of methods and records do not exist. `large`: records share pages, by their first digits.
    """

    up: str = ""
    single: bool = False
    large: bool = False

    def index(self) -> str:
        """Return the address of the first page."""
        return "#top" if self.single else f"{self.up}index.html"

    def board(self, place: Place, view: View | None = None) -> str:
        """Return the address of a board; of the one that is shown first without a view."""
        if self.single:
            return f"#{place.name}"
        return f"{self.up}d/{board_file(place, view or place.own)}"

    def protocol(self, place: Place) -> str:
        """Return the address of the comparison of selection rules."""
        return f"{self.up}d/{place.name}.rules.html"

    def figures(self, place: Place) -> str:
        """Return the address of the figures of a board with many rows."""
        return f"{self.up}d/{place.name}.figures.html"

    def method(self, name: str) -> str:
        """Return the address of a method, empty if there is none."""
        return "" if self.single else f"{self.up}m/{file_name(name)}.html"

    def record(self, name: str) -> str:
        """Return the address of a record by its id, empty if there is none."""
        if self.single:
            return ""
        return (
            f"{self.up}r/{name[:DIGITS]}.html#{name}" if self.large else f"{self.up}r/{name}.html"
        )

    def records(self) -> str:
        """Return the address of the data of all records."""
        return self.data("records.csv.gz" if self.large else "records.jsonl.gz")

    def data(self, name: str) -> str:
        """Return the address of a file of data, empty if there is none."""
        return "" if self.single else f"{self.up}data/{name}"


def board_file(place: Place, view: View) -> str:
    """Return the file name of a board."""
    rule, metric = view
    return f"{place.name}.html" if view == place.own else f"{place.name}.{rule}.{metric}.html"
