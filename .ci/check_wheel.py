"""Check that a wheel holds the whole package, data files included, and nothing else.

python -m build && python .ci/check_wheel.py dist/*.whl
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
METADATA = {"METADATA", "entry_points.txt", "licenses/LICENSE"}


def main() -> None:
    """Compare the names in the wheel with the files of the package."""
    (wheel,) = sys.argv[1:]
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "debiasbench").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    content = {name for name in names if ".dist-info/" not in name}
    metadata = {name.partition(".dist-info/")[2] for name in names - content}
    data = {name for name in content if name.endswith(("/py.typed", ".toml"))}
    for problem, files in (
        ("lacks", package - content),
        ("lacks metadata", METADATA - metadata),
        ("holds files that are not in the package:", content - package),
    ):
        if files:
            sys.exit(f"{wheel} {problem} {', '.join(sorted(files))}")
    if "debiasbench/py.typed" not in data or len(data) < 2:
        sys.exit(f"{wheel} lacks py.typed or the suites")
    print(f"{wheel}: {len(content)} files, among them {', '.join(sorted(data))}")


if __name__ == "__main__":
    main()
