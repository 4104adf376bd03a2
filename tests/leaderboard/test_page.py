"""Tables in Markdown pages: filled by the command that a page names, and checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from debiasbench.common.errors import RecordError
from debiasbench.leaderboard.page import regenerated
from debiasbench.records.record import to_json
from tests.leaderboard.test_leaderboard import ERM

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


def test_a_page_is_not_made_from_damaged_or_doubled_records(tmp_path: Path) -> None:
    page = write_page(tmp_path)
    (tmp_path / "records" / "copy.json").write_text(to_json(ERM[0]))
    with pytest.raises(RecordError, match="There are two records of"):
        regenerated(page)
