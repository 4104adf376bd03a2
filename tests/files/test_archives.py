"""Archives: unpacked completely into their folder, or refused."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from debiasbench.common.errors import DataError
from debiasbench.core.download import Download
from debiasbench.files.download import fetch
from tests.files.packing import ARCHIVES, GIVES, GOOD, archive, tar_of, zip_of
from tests.files.server import CONTENT, OTHER, Site, Watched, digest, disk, tree

pytestmark = pytest.mark.usefixtures("no_network_and_no_waiting")


def test_a_gz_file_is_unpacked_beside_itself_and_removed(site: Site, tmp_path: Path) -> None:
    url = site.serve("/x", content=gzip.compress(CONTENT))
    download = Download("raw/x-ubyte.gz", (url,), unpack="gz")
    assert fetch([download], tmp_path) == (tmp_path / "raw" / "x-ubyte",)
    assert (tmp_path / "raw" / "x-ubyte").read_bytes() == CONTENT
    assert tree(tmp_path) == {"raw", "raw/x-ubyte"}
    assert fetch([download], tmp_path) == ()


def test_a_gz_file_stays_compressed_unless_declared(site: Site, tmp_path: Path) -> None:
    fetch([Download("x.gz", (site.serve("/x"),))], tmp_path)
    assert tree(tmp_path) == {"x.gz"}


@pytest.mark.parametrize(("unpack", "content"), ARCHIVES.values(), ids=list(ARCHIVES))
def test_an_archive_is_unpacked_into_its_folder_and_removed(
    site: Site, tmp_path: Path, unpack: str, content: bytes
) -> None:
    fetch([archive(site.serve("/x", content=content), unpack)], tmp_path)
    assert tree(tmp_path) == {"data", "data/images", *GIVES}
    assert [(tmp_path / name).read_bytes() for name in GIVES] == [b"one", b"two"]


def test_an_archive_can_be_unpacked_into_another_folder(site: Site, tmp_path: Path) -> None:
    url = site.serve("/x", content=ARCHIVES["zip"][1])
    download = Download("pack", (url,), gives=GIVES, unpack="zip", into="data")
    fetch([download], tmp_path)
    assert tree(tmp_path) == {"data", "data/images", *GIVES}


def test_an_existing_folder_is_completed(site: Site, tmp_path: Path) -> None:
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    (images / "a").write_bytes(b"torn")
    (images / "mine").write_bytes(b"kept")
    fetch([archive(site.serve("/x", content=ARCHIVES["tar"][1]))], tmp_path)
    contents = [(images / name).read_bytes() for name in ("a", "b", "mine")]
    assert contents == [b"one", b"two", b"kept"]


def test_an_archive_placed_by_the_user_is_used_and_kept(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pack").write_bytes(ARCHIVES["tar"][1])
    fetch([archive(site.serve("/x"), sha256=digest(ARCHIVES["tar"][1]))], tmp_path)
    assert site.requests == []
    assert tree(tmp_path) == {"data", "data/pack", "data/images", *GIVES}


def test_a_wrong_archive_placed_by_the_user_is_refused_and_kept(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pack").write_bytes(OTHER)
    with pytest.raises(
        DataError, match=rf"pack is not the expected file.*{digest(OTHER)}.*Remove it"
    ):
        fetch([archive(site.serve("/x"), sha256=digest(CONTENT))], tmp_path)
    assert tree(tmp_path) == {"data", "data/pack"}


SYM, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
LINK = stat.S_IFLNK | 0o777
HOSTILE: dict[str, tuple[str, str, bytes]] = {
    "tar absolute": ("/tmp/evil", "tar", tar_of(*GOOD, ("/tmp/evil", b"x"))),
    "tar dots": ("../evil", "tar", tar_of(*GOOD, ("../evil", b"x"))),
    "tar dots inside": ("a/../../evil", "tar", tar_of(*GOOD, ("a/../../evil", b"x"))),
    "tar drive": ("C:evil", "tar", tar_of(*GOOD, ("C:evil", b"x"))),
    "tar symlink absolute": ("s", "tar", tar_of(*GOOD, ("s", (SYM, "/etc/passwd")))),
    "tar symlink out": ("images/s", "tar", tar_of(*GOOD, ("images/s", (SYM, "../../x")))),
    "tar symlink to a folder": (
        "images/s",
        "tar",
        tar_of(*GOOD, ("images/s", (SYM, "..")), ("images/s/evil", b"x")),
    ),
    "tar symlink to a symlink": (
        "t",
        "tar",
        tar_of(*GOOD, ("s", (SYM, "images/a")), ("t", (SYM, "s"))),
    ),
    "tar symlink to itself": ("s", "tar", tar_of(*GOOD, ("s", (SYM, "s")))),
    "tar hard link out": ("h", "tar", tar_of(*GOOD, ("h", (HARD, "../../etc/passwd")))),
    "tar hard link absolute": ("h", "tar", tar_of(*GOOD, ("h", (HARD, "/etc/passwd")))),
    "tar device": ("d", "tar", tar_of(*GOOD, ("d", (tarfile.CHRTYPE, "")))),
    "tar pipe": ("p", "tar", tar_of(*GOOD, ("p", (tarfile.FIFOTYPE, "")))),
    "zip absolute": ("/tmp/evil", "zip", zip_of(*GOOD, ("/tmp/evil", b"x"))),
    "zip dots": ("../evil", "zip", zip_of(*GOOD, ("../evil", b"x"))),
    "zip drive": ("C:/evil", "zip", zip_of(*GOOD, ("C:/evil", b"x"))),
    "zip backslash": (r"..\\evil", "zip", zip_of(*GOOD, ("..\\evil", b"x"))),
    "zip symlink out": ("s", "zip", zip_of(("s", b"../../x"), mode=LINK)),
    "zip device": ("d", "zip", zip_of(("d", b""), mode=stat.S_IFCHR)),
}


@pytest.mark.parametrize(("member", "unpack", "content"), HOSTILE.values(), ids=list(HOSTILE))
def test_an_unsafe_archive_is_refused_and_nothing_is_written(
    site: Site, tmp_path: Path, member: str, unpack: str, content: bytes
) -> None:
    with pytest.raises(DataError) as error:
        fetch([archive(site.serve("/x", content=content), unpack)], tmp_path / "root")
    assert f"contains '{member}'" in str(error.value)
    assert tree(tmp_path / "root") == {"data"}
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_a_link_longer_than_any_path_is_not_read(site: Site, tmp_path: Path) -> None:
    content = zip_of(("s", b"x" * 5000), mode=LINK)
    with pytest.raises(DataError, match="contains 's', which is not a file, folder or link"):
        fetch([archive(site.serve("/x", content=content), "zip")], tmp_path)


def test_a_link_within_an_archive_becomes_a_copy(site: Site, tmp_path: Path) -> None:
    content = tar_of(("images/a", b"one"), ("images/b", (SYM, "a")), ("c", (HARD, "images/a")))
    fetch([archive(site.serve("/x", content=content))], tmp_path)
    for name in ("images/b", "c"):
        copy = tmp_path / "data" / name
        assert not copy.is_symlink()
        assert copy.stat().st_nlink == 1
        assert copy.read_bytes() == b"one"


def test_a_link_in_a_zip_becomes_a_copy(site: Site, tmp_path: Path) -> None:
    buffer = io.BytesIO(zip_of(("images/a", b"one")))
    with zipfile.ZipFile(buffer, "a") as zipped:
        info = zipfile.ZipInfo("images/b")
        info.external_attr = LINK << 16
        zipped.writestr(info, "a")
    fetch([archive(site.serve("/x", content=buffer.getvalue()), "zip")], tmp_path)
    copy = tmp_path / "data" / "images" / "b"
    assert not copy.is_symlink()
    assert copy.read_bytes() == b"one"


@pytest.mark.parametrize(
    ("unpack", "content"),
    [
        ("zip", zip_of(*GOOD, ("bomb", bytes(10**6)))),
        ("tar", tar_of(*GOOD, ("bomb", bytes(10**6)))),
    ],
    ids=["zip", "tar"],
)
def test_a_bomb_is_refused_by_its_announced_size(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpack: str, content: bytes
) -> None:
    disk(monkeypatch, 10**6)
    with pytest.raises(DataError, match=r"The content of data/pack needs 1.0 MB"):
        fetch([archive(site.serve("/x", content=content), unpack)], tmp_path)
    assert tree(tmp_path) == {"data", "data/pack"}


def test_a_bomb_of_unknown_size_is_stopped_while_unpacking(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = site.serve("/x", content=gzip.compress(bytes(10**6)))
    disk(monkeypatch, 10**5)
    with pytest.raises(DataError, match="unpacks to more than the declared size"):
        fetch([Download("x.gz", (url,), unpack="gz")], tmp_path)
    assert tree(tmp_path) == set()


@pytest.mark.parametrize("unpacked", [5, 6])
def test_only_more_than_the_declared_size_is_refused(
    site: Site, tmp_path: Path, unpacked: int
) -> None:
    download = archive(site.serve("/x", content=ARCHIVES["tar"][1]), unpacked=unpacked)
    if unpacked == 6:
        assert fetch([download], tmp_path)
        return
    with pytest.raises(DataError, match="unpacks to more than the declared size"):
        fetch([download], tmp_path)
    assert tree(tmp_path) == {"data"}


@pytest.mark.parametrize(
    ("unpack", "content"),
    [
        ("tar", ARCHIVES["tar"][1][:60]),
        ("tar", b"not an archive"),
        ("zip", ARCHIVES["zip"][1][:60]),
        # the five compressed bytes of the first image, after its header and name
        ("zip", ARCHIVES["zip"][1].replace(zip_of(GOOD[0])[38:43], b"\0" * 5)),
    ],
    ids=["cut tar", "not a tar", "cut zip", "changed zip"],
)
def test_a_damaged_archive_is_deleted_and_downloaded_again(
    site: Site, tmp_path: Path, unpack: str, content: bytes
) -> None:
    with pytest.raises(DataError, match="is damaged"):
        fetch([archive(site.serve("/x", content=content), unpack)], tmp_path)
    assert tree(tmp_path) == {"data"}
    fetch([archive(site.serve("/x", content=ARCHIVES[unpack][1]), unpack)], tmp_path)
    assert (tmp_path / GIVES[0]).read_bytes() == b"one"


def test_a_damaged_gz_file_leaves_no_partial_content(site: Site, tmp_path: Path) -> None:
    url = site.serve("/x", content=gzip.compress(CONTENT)[:-4])
    with pytest.raises(DataError, match="is damaged"):
        fetch([Download("x.gz", (url,), unpack="gz")], tmp_path)
    assert tree(tmp_path) == set()


def test_an_archive_without_the_declared_files_is_refused(site: Site, tmp_path: Path) -> None:
    url = site.serve("/x", content=tar_of(GOOD[0]))
    with pytest.raises(DataError, match="does not contain data/images/b"):
        fetch([archive(url)], tmp_path)
    assert tree(tmp_path) == {"data"}


def test_a_kill_while_unpacking_keeps_the_archive_and_nothing_partial(
    site: Site, tmp_path: Path
) -> None:
    class Killed(Watched):
        def advance(self, count: int = 1) -> None:
            if self.started[-1][0].startswith("unpacking"):
                raise KeyboardInterrupt

    download = archive(site.serve("/x", content=ARCHIVES["tar"][1]))
    with pytest.raises(KeyboardInterrupt):
        fetch([download], tmp_path, progress=Killed())
    assert tree(tmp_path) == {"data", "data/pack"}
    fetch([download], tmp_path)
    assert len(site.requests) == 1
    assert download.is_there(tmp_path)


def test_leftovers_of_a_killed_process_are_removed(site: Site, tmp_path: Path) -> None:
    torn = tmp_path / "data" / ".pack.unpacking" / "data" / "images"
    torn.mkdir(parents=True)
    (torn / "c").write_bytes(b"torn")
    fetch([archive(site.serve("/x", content=ARCHIVES["tar"][1]))], tmp_path)
    assert tree(tmp_path) == {"data", "data/images", *GIVES}
