"""Print the lowest versions that pyproject.toml allows, as constraints for pip.

python .ci/lowest.py > lowest.txt && pip install -e ".[test]" -c lowest.txt
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads(Path(__file__).parent.with_name("pyproject.toml").read_text())["project"]

for requirement in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]:
    match = re.fullmatch(r"([\w.-]+)>=([\d.]+)(?:,<[\d.]+)?", requirement)
    if match is None:
        raise SystemExit(
            f"{requirement!r} in pyproject.toml has no lower bound: write NAME>=VERSION"
        )
    print(f"{match[1]}=={match[2]}")
