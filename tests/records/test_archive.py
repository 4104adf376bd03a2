"""Archives of records are equal for equal records, and write nothing outside of their folder."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
from pathlib import Path

import pytest

from debiasbench.common.errors import RecordError, StoreError
from debiasbench.records import archive
from debiasbench.records.archive import ENDING, pack, unpacked
from debiasbench.records.beside import around


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("DEBIASBENCH_CACHE", str(folder))
    return folder


def files(tmp_path: Path) -> list[tuple[str, Path]]:
    made = []
    for name in ("a.json", "b.json", "search/c.json", "a.predictions.safetensors"):
        path = tmp_path / "from" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}" * 1000)
        made.append((name, path))
    return made


def written(tmp_path: Path, content: bytes, name: str = "suite") -> Path:
    path = tmp_path / f"{name}{ENDING}"
    path.write_bytes(content)
    return path


def test_an_archive_is_unpacked_into_what_it_was_made_from(tmp_path: Path) -> None:
    made = files(tmp_path)
    folder = unpacked(written(tmp_path, pack(made)))
    found = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
    assert found == {name: path.read_text() for name, path in made}


def test_equal_files_give_equal_archives_in_any_order_and_at_any_time(tmp_path: Path) -> None:
    made = files(tmp_path)
    first = pack(made)
    for _, path in made:
        path.touch()
        path.chmod(0o600)
    assert pack(reversed(made)) == first


def test_an_archive_is_unpacked_once_and_again_when_its_content_changes(tmp_path: Path) -> None:
    made = files(tmp_path)
    path = written(tmp_path, pack(made))
    folder = unpacked(path)
    (folder / "a.json").write_text("kept")
    assert unpacked(path) == folder
    assert (folder / "a.json").read_text() == "kept"
    path.write_bytes(pack(made[1:]))
    assert unpacked(path) != folder
    assert not (unpacked(path) / "a.json").exists()


def raw(*members: tarfile.TarInfo, content: bytes = b"{}") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content))
    return lzma.compress(buffer.getvalue())


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside.json"),
        member("/outside.json"),
        member("a/../../outside.json"),
        member(".hidden.json"),
        member("script.py"),
        member("x.json", tarfile.SYMTYPE, "/etc/passwd"),
        member("x.json", tarfile.LNKTYPE, "a.json"),
        member("x.json", tarfile.FIFOTYPE),
        member("a\x1b[2J.json"),
    ],
    ids=lambda bad: repr(bad.name),
)
def test_a_name_or_kind_that_no_record_has_is_refused(
    tmp_path: Path, cache: Path, bad: tarfile.TarInfo
) -> None:
    path = written(tmp_path, raw(member("a.json"), bad))
    with pytest.raises(RecordError) as error:
        unpacked(path)
    assert str(path) in str(error.value)
    assert "\x1b" not in str(error.value)
    assert not [file for file in tmp_path.rglob("*") if "outside" in file.name]
    assert not list((cache / "archives").iterdir())


@pytest.mark.parametrize("cut", [0, 10, -20])
def test_a_damaged_archive_is_named_and_leaves_nothing(
    tmp_path: Path, cache: Path, cut: int
) -> None:
    path = written(tmp_path, pack(files(tmp_path))[:cut] if cut else b"not an archive at all")
    with pytest.raises(RecordError, match=f"suite{ENDING} is damaged or no archive of records"):
        unpacked(path)
    assert not list((cache / "archives").iterdir())


def test_an_archive_that_unpacks_into_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 20)
    huge = raw(member("a.json"), content=b" " * (2 << 20))
    assert len(huge) < 10_000
    with pytest.raises(RecordError, match=r"more than .* files or 1\.0 MB"):
        unpacked(written(tmp_path, huge))


def test_a_file_that_could_not_be_unpacked_is_not_packed(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("x")
    with pytest.raises(StoreError, match=r"notes\.txt cannot be packed"):
        pack([("notes.txt", path)])


def test_what_could_not_be_read_again_is_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("MOST_PACKED", "MOST_BYTES", "MOST_FILES"):
        with monkeypatch.context() as patch:
            patch.setattr(archive, limit, 3)
            with pytest.raises(StoreError, match=r"too large for an archive.*Pack a part"):
                pack(files(tmp_path))


def test_files_about_records_are_looked_for_beside_their_archive(tmp_path: Path) -> None:
    place = tmp_path / "leaderboard" / "records"
    place.mkdir(parents=True)
    folder = unpacked(written(place, pack(files(tmp_path))))
    assert around(folder)[1:] == [place, place.parent]
    assert around(folder / "search")[1:] == [place, place.parent]
    assert around(place) == [place, place.parent]


def test_copies_of_archives_are_listed_and_removed(tmp_path: Path, cache: Path) -> None:
    from click.testing import CliRunner

    from debiasbench.cli import main

    def call(*words: str) -> list[str]:
        done = CliRunner().invoke(main, ["cache", *words])
        assert done.exit_code == 0, done.output
        return done.output.splitlines()

    place = written(tmp_path, pack(files(tmp_path)), "suite")
    results = ["--results", str(tmp_path / "none")]
    assert not any("archive" in line for line in call("ls", *results))
    folder = unpacked(place)
    left, begun = cache / "archives" / ".new-left", cache / "archives" / ".new-begun"
    for other in (left, begun):
        other.mkdir()
    os.utime(left, (1, 1))
    (line,) = [line for line in call("ls", *results) if line.startswith("suite-")]
    assert line.split() == [folder.name, "4", "0.1", "MB"]
    assert call("clear")[-1] == "1 unpacked archive removed (0.1 MB)"
    assert not folder.exists()
    assert not left.exists()
    assert begun.exists()  # another process may be writing it
    assert place.exists()
    assert unpacked(place) == folder
    assert folder.is_dir()
