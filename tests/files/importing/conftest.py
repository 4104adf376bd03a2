"""The birds, as a fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from debiasbench.files.importing import Source
from tests.files.importing.birds import birds_in


@pytest.fixture
def birds(tmp_path: Path) -> Source:
    return birds_in(tmp_path)
