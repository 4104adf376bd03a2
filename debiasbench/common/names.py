"""What data sets, models and methods may be called."""

from __future__ import annotations

import re

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*:?")
"""Names become parts of file names, so nothing that could climb out of a folder."""
