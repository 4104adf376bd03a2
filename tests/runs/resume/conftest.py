"""The plugins of these tests."""

from __future__ import annotations

import pytest

from debiasbench.specs.plugins import Plugins
from tests.runs.resume.stopping import PLUGINS


@pytest.fixture
def plugins() -> Plugins:
    return Plugins(PLUGINS)
