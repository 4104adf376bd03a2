"""Valid names of data sets, models, methods and sparsifiers."""

from __future__ import annotations

import re

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*:?")
"""Names become parts of file names, so they contain no path separator and begin with no dot."""

IMPORTED = "imported:"
"""The family of imported data sets: the full name of the data set `birds` is `imported:birds`."""
