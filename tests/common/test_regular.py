"""Only regular files are read, and nothing that controls a terminal is printed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from debiasbench.common.regular import read_regular
from debiasbench.common.wording import printable, shortened


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 3_000_000)
    assert read_regular(file) == b"x" * 3_000_000
    assert read_regular(file, 3_000_000) == b"x" * 3_000_000
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_regular(link) == file.read_bytes()


def test_a_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(OSError, match="1,099,511,627,776 bytes, and 1,000 are the most"):
        read_regular(file, 1000)


def test_what_is_not_a_regular_file_is_refused_and_nothing_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name, complaint in {
        tmp_path / "fifo": "not a regular file",
        Path("/dev/zero"): "not a regular file",
        tmp_path: "Is a directory",
        tmp_path / "loop": "symbolic links",
        tmp_path / "nothing": "No such file",
    }.items():
        with pytest.raises(OSError, match=complaint):
            read_regular(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode 数 and\n\ttabs", "plain, ünïcode 数 and\n\ttabs"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\r\x7f\x9b", "\\r\\x7f\\x9b"),
        ("abc\u202edef", "abc\\u202edef"),
        (os.fsdecode(b"\xff.json"), "\\udcff.json"),
    ],
)
def test_control_characters_are_shown_not_sent(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_long_text_keeps_its_ends() -> None:
    assert shortened("x" * 300) == "x" * 300
    assert shortened("a" * 500 + "b" * 500, 11) == "aaaa...bbbb"
