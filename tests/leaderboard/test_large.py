"""The site of thousands of records: on shared pages, complete, escaped, and without dead links."""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
from click.testing import CliRunner

from debiasbench.cli import main
from debiasbench.cli import site as command
from debiasbench.common.errors import UnknownNameError
from debiasbench.leaderboard import table
from debiasbench.leaderboard.gather import gather
from debiasbench.leaderboard.site import About, write_large
from debiasbench.leaderboard.site.links import DIGITS
from debiasbench.records.record import to_json
from tests.leaderboard.sites import FORMULA, METHOD, Page, hostile, usual

ABOUT = {"rest": About("Trains with few weights <b>.", "Rest et al., 2023")}


def made(folder: Path, records: list[Any], **words: Any) -> Path:
    (folder / "records").mkdir(parents=True)
    for i, record in enumerate(records):
        (folder / "records" / f"{i}.json").write_text(to_json(record))
    write_large(gather([folder / "records"], words.get("select")), folder / "site", **words)
    return folder / "site"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("large"), usual(), baseline="erm", about=ABOUT)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("attacked"), hostile())


def html(folder: Path) -> list[Page]:
    return [Page(path) for path in sorted(folder.rglob("*.html"))]


def links(page: Page) -> list[str]:
    return [str(a["href"]) for a in page.named("a") if a.get("href")]


def test_every_record_is_on_the_page_of_its_first_digits(built: Path) -> None:
    for record in usual():
        text = (built / "r" / f"{record.id[:DIGITS]}.html").read_text()
        assert text.count(f'id="{record.id}"') == 1
        assert "debiasbench run --method" in text
    assert not list((built / "r").glob("*.json"))


@pytest.mark.parametrize("name", ["built", "attacked"])
def test_no_link_is_dead(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    pages = html(folder)
    assert len(pages) > 4
    seen = 0
    for page in pages:
        text = page.path.read_text()
        for address in links(page):
            target, fragment = urldefrag(unquote(address))
            path = (page.path.parent / target).resolve() if target else page.path
            assert path.is_file(), (page.path, address)
            if fragment and path.suffix == ".html" and path.parent.name == "r":
                assert f'id="{fragment}"' in path.read_text()
                seen += 1
        assert "<script>alert" not in text
    assert seen


def test_the_tables_are_those_that_the_command_prints(built: Path) -> None:
    shown = json.loads((built / "data" / "overview.json").read_text())
    text, _ = table([built.parent / "records"], "json", baseline="erm")
    assert shown == json.loads(text)
    files = sorted(set(built.glob("data/*.json")) - {built / "data" / "overview.json"})
    each = [json.loads(file.read_text()) for file in files]
    assert sorted(one["dataset"] for of in each for one in of) == [b["dataset"] for b in shown]
    assert all(of[0] in shown for of in each)


def test_the_data_of_all_records_are_one_table(built: Path) -> None:
    text = gzip.decompress((built / "data" / "records.csv.gz").read_bytes()).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    of_id = {record.id: record for record in usual()}
    assert sorted(row["id"] for row in rows) == sorted(of_id)
    for row in rows:
        record = of_id[row["id"]]
        assert row["seed"] == str(record.spec.seed)
        assert row["status"] == record.status
        assert row["started"] == record.provenance.started
        if record.status == "ok":
            metrics = record.outcomes[row["select"]].test.metrics
            assert float(row["unbiased"]) == metrics["unbiased"]
    (link,) = {a for page in html(built) for a in links(page) if a.endswith("records.csv.gz")} - {
        "../data/records.csv.gz"
    }
    assert link == "data/records.csv.gz"


def test_a_formula_and_markup_in_records_do_nothing(attacked: Path) -> None:
    text = gzip.decompress((attacked / "data" / "records.csv.gz").read_bytes()).decode()
    assert not any(cell.startswith("=") for row in csv.reader(io.StringIO(text)) for cell in row)
    for page in attacked.rglob("*.html"):
        assert METHOD not in page.read_text()
        assert "\x1b" not in page.read_text()
    assert FORMULA not in text


def test_equal_records_give_equal_bytes_with_an_index_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from debiasbench.records.index import folder as index

    monkeypatch.setattr(index, "LEAST", 1)
    monkeypatch.setattr(index, "SETTLED", -1e9)
    monkeypatch.setenv("DEBIASBENCH_CACHE", str(tmp_path / "cache"))
    site = made(tmp_path, usual(), about=ABOUT)
    first = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    write_large(gather([tmp_path / "records"]), site, about=ABOUT)
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == first
    for _ in range(2):  # the first call makes the index, the second one uses it
        write_large(gather([tmp_path / "records"]), site, about=ABOUT)
        assert {p: p.read_bytes() for p in site.rglob("*") if p.is_file()} == first
    write_large(gather([tmp_path / "records"], index=False), tmp_path / "other", about=ABOUT)
    other = {p.relative_to(tmp_path / "other"): p for p in (tmp_path / "other").rglob("*.*")}
    assert {path: one.read_bytes() for path, one in other.items() if one.is_file()} == {
        path.relative_to(site): content for path, content in first.items()
    }


def test_a_baseline_that_no_table_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="baseline"):
        made(tmp_path, usual(), baseline="nothing")


def test_another_rule_and_data_set_can_be_asked_for(tmp_path: Path) -> None:
    records = usual()
    site = made(tmp_path, records, select="last", metric="conflict", dataset="toy")
    (board, *others) = json.loads((site / "data" / "overview.json").read_text())
    assert (board["select"], board["metric"]) == ("last", "conflict")
    assert {one["dataset"].partition(" ")[0] for one in [board, *others]} == {"toy"}


def test_the_command_makes_such_a_site_of_many_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "records"
    place.mkdir()
    records = [replace(one) for one in usual()]
    for i, record in enumerate(records):
        (place / f"{i}.json").write_text(to_json(record))
    monkeypatch.setattr("debiasbench.leaderboard.site.LARGE", len(records) - 1)
    monkeypatch.setattr("debiasbench.common.copies.copies", lambda: 1)
    words = ["leaderboard", str(place), "--site", str(tmp_path / "site")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert f"from {len(records)} records" in done.output
    assert (tmp_path / "site" / "r" / f"{records[0].id[:DIGITS]}.html").is_file()
    assert command._number([place]) == len(records)
    monkeypatch.setattr("debiasbench.leaderboard.site.LARGE", len(records))
    assert CliRunner().invoke(main, words).exit_code == 0
    assert (tmp_path / "site" / "r" / f"{records[0].id}.html").is_file()
    assert not (tmp_path / "site" / "r" / f"{records[0].id[:DIGITS]}.html").exists()
