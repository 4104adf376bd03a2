"""The site: complete, escaped, within its budget, equal for equal records, and without requests."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from click.testing import CliRunner

from debiasbench.cli import main
from debiasbench.common.errors import RecordError, StoreError, UnknownNameError
from debiasbench.leaderboard.site import About, write_page, write_site
from debiasbench.leaderboard.site.build import pages, single
from debiasbench.leaderboard.site.content import collect
from debiasbench.leaderboard.site.data import of_place
from debiasbench.leaderboard.site.folder import Folder
from debiasbench.leaderboard.site.heat import of_row
from debiasbench.leaderboard.site.links import Links
from debiasbench.leaderboard.site.methods import pair_tables
from debiasbench.leaderboard.site.names import file_name, hashed
from debiasbench.leaderboard.site.overview import method_table
from debiasbench.records.beside import sha256
from debiasbench.records.metrics import METRICS
from debiasbench.records.reading import read_all
from debiasbench.records.record import Record, to_json
from debiasbench.records.selection import RULES
from debiasbench.records.trust import Trust, raised
from debiasbench.specs.command import CONTINUED, command
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import find_dataset, make_spec
from debiasbench.specs.spec import Choice
from debiasbench.specs.words import arguments, combined, read_settings
from tests.leaderboard.sites import FORMULA, METHOD, Page, gathered, hostile, many, site, usual
from tests.leaderboard.test_leaderboard import run

PUBLISHED = Path(__file__).parent.parent.parent / "leaderboard" / "records"
ABOUT = {"rest": About("Trains with few weights <b>.", "Rest et al., 2023")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site(tmp_path_factory.mktemp("built"), usual(), baseline="erm", about=ABOUT)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site(tmp_path_factory.mktemp("attacked"), hostile())


def html(folder: Path) -> list[Page]:
    return [Page(path) for path in sorted(folder.rglob("*.html"))]


# --- what is there ----------------------------------------------------------------------------


def test_a_site_has_a_page_for_each_board_method_and_record(built: Path) -> None:
    first = [p for p in (built / "d").glob("*.html") if p.name.count(".") == 1]
    assert len(first) == 2
    assert {p.stem for p in (built / "m").glob("*")} == {"erm", "lff", "rest"}
    ids = {record.id for record in usual()}
    assert {p.stem for p in (built / "r").glob("*.html")} == ids
    assert {p.stem for p in (built / "r").glob("*.json")} == ids


def test_every_rule_and_metric_is_a_page_that_links_lead_to(built: Path) -> None:
    boards = [p for p in (built / "d").glob("*.html") if not p.name.endswith(".rules.html")]
    for path in boards:
        found = [a for a in Page(path).named("a") if a.get("class") == "keep"]
        assert {a["data-metric"] for a in found if "data-metric" in a} == set(METRICS)
        assert {a["data-rule"] for a in found if "data-rule" in a} == set(RULES)
        assert sum("aria-current" in a for a in found) == 2
    assert len(boards) == 2 * len(METRICS) * len(RULES)


@pytest.mark.parametrize("folder", ["built", "attacked"])
def test_every_link_leads_to_a_file_or_an_element(
    folder: str, request: pytest.FixtureRequest
) -> None:
    root: Path = request.getfixturevalue(folder)
    for page in html(root):
        for a in page.named("a"):
            target, anchor = urldefrag(a["href"] or "")
            path = page.path if not target else page.path.parent / unquote(target)
            assert path.resolve().is_relative_to(root.resolve())
            assert path.is_file(), a
            if anchor:
                assert anchor in {x.get("id") for _, x in page.tags}


def test_no_page_names_another_host_or_loads_anything(built: Path, attacked: Path) -> None:
    for page in [*html(built), *html(attacked)]:
        assert not re.search(r"(src|href|action|data|poster)=[\"']?(https?:)?//", page.source)
        assert {tag for tag, _ in page.tags} <= {
            *("html", "head", "meta", "link", "title", "style", "body", "a", "header", "nav"),
            *("p", "label", "select", "option", "main", "footer", "script", "h1", "h2", "h3"),
            *("table", "caption", "thead", "tbody", "tr", "th", "td", "div", "span", "strong"),
            *("input", "button", "output", "svg", "path", "circle", "text", "title", "line", "g"),
            *("rect", "dl", "dt", "dd", "ul", "li", "pre", "code", "figure", "figcaption"),
            *("details", "summary", "section"),
        }
        assert [x["href"] for x in page.named("link")] == ["data:,"]
        assert not any("style" in x or any(k.startswith("on") for k in x) for _, x in page.tags)


def test_rows_are_in_the_body_of_their_section_and_name_their_records(built: Path) -> None:
    (path,) = [
        p
        for p in (built / "d").glob("*.html")
        if p.stem.startswith("toy-ratio-0-05-") and p.name.count(".") == 1
    ]
    page = Page(path)
    assert len(page.named("tbody")) == 2 + 3  # sections, and heat maps
    assert sum(x.get("scope") == "rowgroup" for x in page.named("th")) == 2
    assert "conflict bit in training, group labels of validation for selection" in page.text
    assert "failed 1 of 6" in page.text
    assert "unverified" in page.text  # these records have no predictions
    assert "minus erm, points" in page.text
    links = {a["href"] for a in page.named("a")}
    assert {f"../r/{record.id}.html" for record in usual()[:16]} <= links


def test_a_method_page_says_what_it_sees_and_cites_its_paper(built: Path) -> None:
    page = Page(built / "m" / "rest.html")
    assert "Trains with few weights <b>." in page.text
    assert "Cite: Rest et al., 2023" in page.text
    assert "conflict bit in training, group labels of validation for selection" in page.text
    assert "debiasbench run --method rest --dataset toy" in page.text
    assert "Cite" not in Page(built / "m" / "erm.html").text


def test_a_record_page_has_the_spec_curves_groups_cost_and_digest(built: Path) -> None:
    record = next(r for r in usual() if r.curves)
    page = Page(built / "r" / f"{record.id}.html")
    for words in (
        "--set dataset.ratio=0.01",
        "Curves",
        "Accuracy in each group",
        "a machine",
        "MFLOPs to predict a sample",
        "2026-11-23T00:00:00+00:00",
        "seed 0",
    ):
        assert words in page.text
    content = (built / "r" / f"{record.id}.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() in page.text
    labels = [svg.get("aria-label") or "" for svg in page.named("svg")]
    assert any(re.search(r"unbiased.* from 31.2 to 62.5", label) for label in labels)
    failed = next(r for r in usual() if r.status == "failed")
    text = Page(built / "r" / f"{failed.id}.html").text
    assert "The run failed in stage train at step 12: NonFiniteLoss. The loss became NaN" in text


def trust(records: list[Record], level: str, **made: str) -> dict[str, Trust]:
    """What maintainers state of records, whose files are as `site` writes them."""
    return {r.id: Trust(level, "2026-11-01", sha256(to_json(r).encode()), **made) for r in records}


def test_trust_and_withdrawal_are_words_beside_a_row(tmp_path: Path) -> None:
    records = usual()[:10]
    first, second = records[:5], records[5:]  # of erm, and of lff
    raised(tmp_path / "trust.json", trust(first, "reproduced"))
    gone = [f'["{r.id}"]\nreason = "a bug"\ndate = "2026-11-01"\n' for r in second]
    (tmp_path / "withdrawn.toml").write_text("".join(gone))
    folder = site(tmp_path, records, whole=False)
    text = Page(next((folder / "d").glob("*.html"))).text
    assert "erm reproduced" in text
    assert "reproduced reproduced" not in text
    assert "lff stale" in text


def test_pages_link_the_source_code_of_a_submission(tmp_path: Path) -> None:
    records = usual()[:5]
    made = {"who": "A <b>Group</b>", "source": 'https://x.example/a"b', "source_sha256": "ab" * 32}
    raised(tmp_path / "trust.json", trust(records, "listed", **made))
    folder = site(tmp_path, records)
    for path in (folder / "m" / "erm.html", folder / "r" / f"{records[0].id}.html"):
        page = Page(path)
        assert "Submitted by A <b>Group</b>. Source code: https://x.example/a" in page.text
        assert f"SHA-256 of its source distribution: {'ab' * 32}" in page.text
        assert made["source"] in [link.get("href") for link in page.named("a")]
    raised(
        tmp_path / "trust.json", trust(records[:1], "verified", **made | {"source": "javascript:"})
    )
    with pytest.raises(RecordError, match="must begin with https://"):
        site(tmp_path, records)


# --- what strangers wrote -----------------------------------------------------------------------


def test_text_of_strangers_is_shown_and_never_markup(attacked: Path) -> None:
    everything = " ".join(page.text for page in html(attacked))
    for words in (METHOD, FORMULA, "<marquee>", "<s>", "</script><script>alert(1)</script>"):
        assert words in everything
    assert "\\x1b[31mred" in everything
    assert "\\u202egnp" in everything
    for page in html(attacked):
        assert len(page.named("script")) == 1
        assert not {"img", "b", "i", "u", "s", "marquee"} & {tag for tag, _ in page.tags}
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", page.source)


def test_names_of_files_are_safe_and_different(attacked: Path) -> None:
    for path in attacked.rglob("*"):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", path.name)
    assert file_name("dfr") == "dfr"
    names = ["../dfr", "..-dfr", "DFR", "dFR", "con", "a" * 200, "a" * 201, "é", "ê", "", "-x"]
    made = [file_name(name) for name in names]
    assert len(set(made)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,68}", name) for name in made)
    assert hashed("x", "a", "bc") != hashed("x", "ab", "c")


def test_no_cell_of_a_csv_file_is_a_formula(attacked: Path) -> None:
    for path in attacked.glob("data/*.csv"):
        for line in csv.reader(io.StringIO(path.read_text())):
            assert not any(re.match(r"[=+@\t\r]|-\D", cell) for cell in line)


# --- policy, budget, determinism ----------------------------------------------------------------


def test_the_policy_allows_exactly_the_style_and_the_script_of_the_page(built: Path) -> None:
    for page in html(built)[:3]:
        first = page.tags[2]
        assert first[0] == "meta"  # after html and head
        assert first[1]["http-equiv"] == "Content-Security-Policy"
        policy = dict(part.split(" ", 1) for part in (first[1]["content"] or "").split("; "))
        assert policy.keys() == {
            *("default-src", "style-src", "script-src", "img-src", "base-uri", "form-action")
        }
        assert (policy["default-src"], policy["base-uri"]) == ("'none'", "'none'")
        for tag in ("style", "script"):
            (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.source, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


def test_a_page_of_160_rows_is_within_its_budget(tmp_path: Path) -> None:
    content = collect(many(160, samples=2), whole=False, baseline="method-000")
    name, page = next(one for one in pages(content) if one[0].startswith("d/"))
    (tmp_path / "page.html").write_text(page)
    parsed = Page(tmp_path / "page.html")
    assert page.count('<tr><th scope="row">') >= 160
    sizes = len(gzip.compress(page.encode())), len(parsed.tags)
    assert sizes[0] <= 60_000, (name, *sizes)
    assert sizes[1] <= 10_000, (name, *sizes)


def test_equal_records_give_equal_bytes_whatever_their_files(tmp_path: Path) -> None:
    one = site(tmp_path / "one", usual(), baseline="erm", whole=False)
    other = site(tmp_path / "another", usual()[::-1], baseline="erm", whole=False)
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    for path in files:
        if path.parent.name != "r" and path.name != "manifest.json":  # these name the files
            assert (one / path).read_bytes() == (other / path).read_bytes(), path
    before = {path: (one / path).read_bytes() for path in files}
    again = site(tmp_path / "one", usual(), baseline="erm", whole=False)
    assert {path: (again / path).read_bytes() for path in files} == before


def test_a_site_is_replaced_without_leaving_pages_of_records_that_are_gone(tmp_path: Path) -> None:
    folder = site(tmp_path, usual(), whole=False)
    (folder / "r" / "mine.txt").write_text("keep")
    write_site(gathered(tmp_path / "fewer", usual()[:5]), folder, whole=False)
    assert {p.stem for p in (folder / "m").glob("*.html")} == {"erm"}
    assert len(list((folder / "r").glob("*.html"))) == 5
    assert (folder / "r" / "mine.txt").read_text() == "keep"
    listed = json.loads((folder / "manifest.json").read_text())
    assert all(
        hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        for name, digest in listed.items()
    )


def test_a_site_that_was_interrupted_is_made_again(tmp_path: Path) -> None:
    Folder(tmp_path / "site").write("index.html", b"half")
    folder = tmp_path / "site"
    write_site(gathered(tmp_path / "records", usual()[:3]), folder, whole=False)
    assert (folder / "index.html").read_bytes() != b"half"


@pytest.mark.parametrize("name", ["../index.html", "r/../../x.html", "/etc/passwd", ".hidden"])
def test_no_file_outside_of_the_site_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a file of a site"):
        Folder(tmp_path / "site").write(name, b"")


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(StoreError, match="holds something other than a site"):
        write_site(gathered(tmp_path / "records", usual()[:3]), tmp_path)
    assert not (tmp_path / "index.html").exists()


# --- numbers ------------------------------------------------------------------------------------


def test_the_data_behind_a_board_are_its_rows_under_all_rules_and_metrics(built: Path) -> None:
    (path,) = (built / "data").glob("toy-ratio-0-05-*[0-9a-f].csv")
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert len(rows) == 3 * len(METRICS) * len(RULES)
    data = json.loads(path.with_suffix(".json").read_text())
    assert {(b["select"], b["metric"]) for b in data} == {(r, m) for r in RULES for m in METRICS}
    groups = list(csv.DictReader(io.StringIO(path.with_suffix(".groups.csv").read_text())))
    erm = [g for g in groups if (g["method"], g["select"]) == ("erm", "last")]
    assert [float(g["accuracy"]) for g in erm] == pytest.approx([1.0, 0.24, 0.3, 1.0])
    latest = json.loads((built / "latest.json").read_text())
    assert latest["date"] == "2026-11-23T00:00:00+00:00"
    assert latest["counts"] == {"records": 26, "methods": 3, "boards": 2, "unverified": 25}
    lines = gzip.decompress((built / "data" / "records.jsonl.gz").read_bytes()).splitlines()
    assert {json.loads(line)["id"] for line in lines} == {record.id for record in usual()}


def test_pairs_count_the_samples_that_only_one_of_two_got_right() -> None:
    made = many(4, seeds=2, side=2, samples=10)
    content = collect(made, whole=False)
    rows = content.methods["method-001"]
    (table,) = pair_tables(rows, Links())
    (line,) = table.sections[0].lines  # only method-002 saw as much
    assert line.name.text == "method-002"
    row, other = (content.methods[name][0][1] for name in ("method-001", "method-002"))
    conflicting = [g in {1, 2} for g in range(4) for _ in range(10)]
    only = [int((row.tables[s] & ~other.tables[s]).sum()) for s in (0, 1)]
    both = [int((other.tables[s] & ~row.tables[s]).sum()) for s in (0, 1)]
    among = [int((row.tables[s] & ~other.tables[s] & conflicting).sum()) for s in (0, 1)]
    assert [cell.value for cell in line.cells[2:5]] == [sum(only), sum(both), sum(among)]
    comparison = content.places[0].board.comparison
    assert comparison is not None
    assert line.cells[0].value == comparison.difference(row, other).mean


def test_the_command_of_a_record_has_its_spec(tmp_path: Path) -> None:
    plugins = Plugins()
    records = [record for _, record in read_all([PUBLISHED / "cmnist-cpu"])[0]]
    for record in records:
        words = shlex.split(command(record.spec, CONTINUED).replace("\\\n", " "))[2:]
        given = dict(zip(words[::2], words[1::2], strict=True))
        settings = [b for a, b in zip(words[::2], words[1::2], strict=True) if a == "--set"]
        names = {n: given[f"--{n}"] for n in ("method", "dataset", "model")}
        keywords = arguments(
            combined([names | {"seed": int(given["--seed"])}, read_settings(settings)]),
            plugins,
            lambda name: find_dataset(plugins, name, tmp_path),
        )
        spec = make_spec(plugins, **keywords, precision="fp32")
        assert (spec.dataset, spec.model, spec.method, spec.training, spec.seed) == (
            record.spec.dataset,
            record.spec.model,
            record.spec.method,
            record.spec.training,
            record.spec.seed,
        )


def test_a_seed_that_was_run_again_counts_once_in_the_accuracies_of_groups(tmp_path: Path) -> None:
    def at(rules: int, seed: int, hits: tuple[int, ...]) -> Record:
        record = run("erm", seed, hits)
        spec = replace(record.spec, revisions={"rules": rules} if rules > 1 else None)
        return replace(record, spec=spec, id=spec.id)

    records = [at(1, seed, (2, 2, 2, 2)) for seed in range(2)] + [at(2, 0, (8, 8, 8, 8))]
    content = collect(gathered(tmp_path, records), whole=False, select="last")
    (place,) = content.places
    (row,) = place.board.rows
    assert row.values == {0: pytest.approx(0.8), 1: pytest.approx(0.2)}
    drawn = of_row(content, place, row, "last")
    assert drawn is not None
    assert {square.text for line in drawn.squares for square in line} == {"50"}
    (table,) = [t for name, t in of_place(place).items() if name.endswith("groups.csv")]
    rows = list(csv.DictReader(io.StringIO(table.decode())))
    assert {r["seeds"] for r in rows if r["select"] == "last"} == {"2"}


def test_an_accuracy_among_differences_has_its_unit(tmp_path: Path) -> None:
    without = [record for record in usual()[-3:] if record.spec.method.name == "rest"]
    alone = [
        replace(
            record,
            spec=(spec := replace(record.spec, dataset=Choice("toy", {"ratio": 0.5}))),
            id=spec.id,
            task=replace(record.task, fingerprint="f00d"),
        )
        for record in without
    ]
    content = collect(gathered(tmp_path, [*usual(), *alone]), baseline="erm")
    table = method_table(content, Links())
    assert "values with % are accuracies without a difference to erm" in table.caption
    (of,) = [
        line for section in table.sections for line in section.lines if line.name.text == "rest"
    ]
    texts = [cell.text for cell in of.cells]
    assert ["%" in text for text in texts] == [False, False, True]
    assert all(text.startswith("+") for text in texts[:2])


def test_a_baseline_that_no_board_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'erm'"):
        write_page(gathered(tmp_path, usual()[:3]), tmp_path / "x.html", baseline="emr")


# --- one page, and the command ------------------------------------------------------------------


def test_one_page_has_all_tables_and_no_link_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        single(collect(gathered(tmp_path / "r", usual()), whole=False))
    )
    page = Page(tmp_path / "page.html")
    assert all((a["href"] or "").startswith("#") for a in page.named("a"))
    ids = [x["id"] for _, x in page.tags if "id" in x]
    assert len(ids) == len(set(ids))
    assert {"boards", "methods", "t-0", "t-1"} <= set(ids)


def test_the_command_writes_a_site_and_a_page(tmp_path: Path) -> None:
    gathered(tmp_path / "records", [*usual()[:4], run("nobody-installed", 0)])
    where, file = tmp_path / "site", tmp_path / "page.html"
    words = ["leaderboard", str(tmp_path / "records")]
    result = CliRunner().invoke(main, [*words, "--site", str(where), "--page", str(file)])
    assert result.exit_code == 0, result.output
    assert "from 5 records" in result.output
    assert "Empirical risk" in Page(where / "m" / "erm.html").text
    assert "erm" in Page(file).text
    for option, value in (("--pivot", "dataset.ratio"), ("--sort", "density"), ("--out", "x")):
        result = CliRunner().invoke(main, [*words, "--site", str(where), option, value])
        assert result.exit_code != 0
        assert f"--site cannot be combined with {option}" in result.output


def test_the_wheel_has_the_templates_the_style_and_the_script() -> None:
    from hatchling.builders.wheel import WheelBuilder

    builder = WheelBuilder(str(Path(__file__).parent.parent.parent))
    names = {file.distribution_path for file in builder.recurse_included_files()}
    folder = "debiasbench/leaderboard/site"
    assert {f"{folder}/style.css", f"{folder}/script.js"} <= names
    assert f"{folder}/templates/base.html.j2" in names
