"""The birds, as a fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from debiasbench.files.importing import Source
from tests.files.importing.birds import HEAD, bird_rows, picture, write


@pytest.fixture
def birds(tmp_path: Path) -> Source:
    """Forty different images of 8x8 pixels in a folder, and a table of them."""
    rows = bird_rows()
    for i, (file, *_) in enumerate(rows):
        picture(tmp_path / "birds" / file, (5 * i, 100, i))
    table = write(tmp_path / "birds.csv", [HEAD, *rows])
    return Source(tmp_path / "birds", table, "species", ("place",))
