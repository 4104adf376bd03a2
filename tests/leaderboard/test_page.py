"""Tables in Markdown pages: filled by the command that a page names, and checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.common.atomic import write_whole
from debiasbench.common.errors import RecordError
from debiasbench.leaderboard.page import regenerated
from debiasbench.records.record import to_json
from tests.leaderboard.test_leaderboard import ERM

Cli = Callable[..., Result]

PAGE = """# Results

<!-- debiasbench leaderboard records --metric conflict -->
<!-- /debiasbench -->

Words after it.
"""


def write_page(folder: Path) -> Path:
    (folder / "records").mkdir()
    for record in ERM:
        (folder / "records" / f"{record.spec.stem}.json").write_text(to_json(record))
    page = folder / "page.md"
    page.write_text(PAGE)
    return page


def test_a_page_is_filled_from_the_command_it_states_and_then_stays(tmp_path: Path) -> None:
    page = write_page(tmp_path)
    now, should = regenerated(page)
    assert now == PAGE
    assert "conflict %" in should
    assert should.startswith("# Results\n\n<!-- debiasbench leaderboard records --metric")
    assert should.endswith("<!-- /debiasbench -->\n\nWords after it.\n")
    page.write_text(should)
    assert regenerated(page) == (should, should)


def test_a_changed_record_changes_what_the_page_should_be(tmp_path: Path) -> None:
    page = write_page(tmp_path)
    page.write_text(regenerated(page)[1])
    (tmp_path / "records" / f"{ERM[0].spec.stem}.json").unlink()
    now, should = regenerated(page)
    assert now != should


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# nothing\n", "has no table to update"),
        (PAGE.replace("records", "nowhere", 1), "No results at"),
        (PAGE.replace("--metric", "--metrik"), "metrik"),
        (PAGE.replace("records --metric conflict", ""), "has no table to update|required"),
    ],
)
def test_the_error_about_a_bad_block_says_what_is_wrong(
    tmp_path: Path, text: str, complaint: str
) -> None:
    page = write_page(tmp_path)
    page.write_text(text)
    with pytest.raises(RecordError, match=complaint):
        regenerated(page)


JUDGED = PAGE.replace(
    "leaderboard records --metric conflict", "reproduce cmnist-mlp --no-run --results records"
)


def test_a_block_judges_published_values_by_records(tmp_path: Path) -> None:
    page = write_page(tmp_path)
    page.write_text(JUDGED)
    should = regenerated(page)[1]
    assert "### Published values of cmnist-mlp" in should
    assert "- 44 values: 44 not run." in should  # the records are of other runs
    (tmp_path / "own.toml").write_text(
        'suite = "digits-methods"\nmetric = "unbiased"\nselect = "last"\n'
        '[sources.paper]\ncitation = "A paper"\nplace = "Table 1"\n'
        '[[values]]\nsource = "paper"\nmethod = "erm"\naccuracy = 50\n'
    )
    page.write_text(JUDGED.replace("cmnist-mlp", "digits-methods --values own.toml"))
    assert "| erm    |" in regenerated(page)[1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("--no-run ", ""), "debiasbench reproduce -->: .*required: --no-run"),
        (("records", "nowhere"), "No results at .*nowhere"),
        (("cmnist-mlp", "cmnist-mpl"), "page.md: .*cmnist-mpl"),
    ],
)
def test_a_block_of_published_values_that_is_wrong_is_refused(
    change: tuple[str, str], complaint: str, tmp_path: Path
) -> None:
    page = write_page(tmp_path)
    page.write_text(JUDGED.replace(*change))
    with pytest.raises(RecordError, match=complaint):
        regenerated(page)


CLOSE = "<!-- /debiasbench -->\n"
TWO = PAGE + "\n" + PAGE


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (PAGE.replace(CLOSE, ""), "a block that begins in line 3 and has no end"),
        (TWO.replace(CLOSE, "", 1), "a block that begins in line 3 and has no end"),
        (TWO[: TWO.rindex(CLOSE)], "a block that begins in line 10 and has no end"),
        (PAGE.replace(CLOSE, f"prose {CLOSE}"), "a block that begins in line 3 and has no end"),
        (PAGE + CLOSE, "the end of a block in line 7, but no block begins"),
        (PAGE.replace("conflict", "'conflict"), "No closing quotation"),
    ],
)
def test_a_page_with_an_unpaired_comment_is_refused_and_stays(
    debiasbench: Cli, tmp_path: Path, text: str, complaint: str
) -> None:
    write_page(tmp_path)
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text(PAGE)
    bad.write_text(text)
    result = debiasbench("leaderboard", "--update", good, bad)
    assert result.exit_code == 9
    assert complaint in result.stderr
    assert bad.read_text() == text
    assert good.read_text() == PAGE  # nothing is written before everything is known to be right


def test_a_block_in_fenced_code_is_an_example(tmp_path: Path) -> None:
    page = write_page(tmp_path)
    for fence in ("```", "~~~~"):
        example = f"{fence}text\n<!-- debiasbench leaderboard nowhere -->\n{fence}\n\n"
        page.write_text(example + PAGE)
        assert regenerated(page)[1].startswith(example)


def test_a_page_keeps_its_line_ends(tmp_path: Path) -> None:
    page = write_page(tmp_path)
    unix = regenerated(page)[1]
    page.write_bytes(("\ufeff" + PAGE.replace("\n", "\r\n")).encode())
    now, should = regenerated(page)
    assert now.encode() == page.read_bytes()
    assert should == "\ufeff" + unix.replace("\n", "\r\n")


def test_an_update_keeps_links_modes_and_owners(debiasbench: Cli, tmp_path: Path) -> None:
    page = write_page(tmp_path)
    page.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(page, 12345, 54321)
    before = page.stat()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link.md"
    link.symlink_to("page.md")
    assert debiasbench("leaderboard", "--update", link).exit_code == 0
    assert link.is_symlink()
    assert "| erm" in page.read_text().replace("*", "")
    after = page.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "elsewhere",
        "link.md",
        "page.md",
        "records",
    ]
    debiasbench("leaderboard", "--update", link)
    assert page.stat().st_ino == after.st_ino  # nothing to write


@pytest.mark.parametrize("kind", ["device", "fifo", "folder", "loop"])
def test_a_table_is_not_written_over_what_is_not_a_regular_file(
    debiasbench: Cli, tmp_path: Path, kind: str
) -> None:
    write_page(tmp_path)
    out = tmp_path / "out"
    if kind == "device":
        out.symlink_to("/dev/full")
    elif kind == "fifo":
        os.mkfifo(out)
    elif kind == "folder":
        out.mkdir()
    else:
        out.symlink_to("out")
    mode = out.lstat().st_mode
    result = debiasbench("leaderboard", "records", "--out", out)
    assert result.exit_code in {2, 7}
    assert len(result.stderr.splitlines()) <= 4
    assert out.lstat().st_mode == mode


def test_a_link_planted_beside_a_page_is_not_followed(debiasbench: Cli, tmp_path: Path) -> None:
    page = write_page(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".{page.name}.new").symlink_to(victim)
    assert debiasbench("leaderboard", "--update", page).exit_code == 0
    assert victim.read_text() == "mine"
    (tmp_path / ".whole.new").symlink_to(victim)
    write_whole(tmp_path / "whole", b"new")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "whole").is_symlink()


def test_a_page_is_not_made_from_damaged_or_doubled_records(tmp_path: Path) -> None:
    page = write_page(tmp_path)
    (tmp_path / "records" / "copy.json").write_text(to_json(ERM[0]))
    with pytest.raises(RecordError, match="There are two records of"):
        regenerated(page)
