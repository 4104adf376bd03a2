"""A sample of a submission is run again; levels of trust follow, and none is lowered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.common.errors import OptionError, RecordError
from debiasbench.records.reading import read, read_all
from debiasbench.records.trust import Trust, raised, read_trust
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.revisions import RULES_REVISION
from debiasbench.submissions.check import checked
from debiasbench.submissions.prepare import prepared
from debiasbench.submissions.reproduce import compared, obstacle, sample
from debiasbench.submissions.trusted import levels
from tests.records.test_record import SPEC
from tests.records.test_verify import edit, set_at
from tests.records.training import seeds, trained
from tests.submissions.folders import MINE, VALUES, provenance, published, submission, write_about

Cli = Callable[..., Result]
OPTIONS = {key: VALUES[key] for key in ("who", "contact", "licence", "claims")}


def test_the_sample_has_records_of_each_row_and_depends_on_the_nonce(tmp_path: Path) -> None:
    other = replace(MINE, training={**MINE.training, "lr": 0.5})
    paths = [*seeds(tmp_path, 5, MINE), *seeds(tmp_path, 5, other)]
    records = [read(path) for path in paths]
    chosen = sample(records, "abc")
    assert [len(row) for row in chosen] == [1, 1]
    assert {row[0].spec.training["lr"] for row in chosen} == {0.1, 0.5}
    backwards = sample(records[::-1], "abc")
    assert [[r.id for r in row] for row in backwards] == [[r.id for r in row] for row in chosen]
    picks = {tuple(r.id for row in sample(records, str(n)) for r in row) for n in range(40)}
    assert len(picks) > 10  # of 25
    assert [len(row) for row in sample(records, "abc", 9)] == [5, 5]


def test_records_of_one_machine_must_be_equal_and_others_near(tmp_path: Path) -> None:
    paths = seeds(tmp_path, 3, MINE)
    row = [replace(read(path), provenance=provenance(code="c")) for path in paths]
    same = compared(row[0], row[0], row, equal=True)
    assert (same.ok, same.message) == (True, "all predictions are equal")
    assert not compared(row[0], row[0], row, equal=False).ok  # nothing explains the difference
    for made in (
        provenance(code="d"),
        provenance(code="c", hardware="another"),
        provenance(code="c", deterministic=False),
        provenance(code="c", versions={"torch": "3"}),
    ):
        elsewhere = replace(row[0], provenance=made)
        assert compared(row[0], elsewhere, row, equal=False).ok
        better = read(trained(tmp_path / "b", MINE, ((10, 10, 10, 10),)))
        far = replace(better, provenance=made)
        result = compared(row[0], far, row, equal=False)
        assert not result.ok
        assert "are the most that test samples and seeds explain; not equal" in result.message


def test_code_that_is_not_that_of_the_record_is_an_obstacle(tmp_path: Path) -> None:
    record = read(seeds(tmp_path, 1, replace(SPEC, revisions={"rules": RULES_REVISION}))[0])
    plugins = Plugins(installed=False)
    assert "Unknown dataset" in (obstacle(record, plugins) or "")
    old = replace(SPEC, revisions={"rules": 99})
    assert "other revisions (selection rules: 99 before" in (
        obstacle(read(seeds(tmp_path, 1, old)[0]), plugins) or ""
    )


# --- the whole way, with real runs --------------------------------------------------------------


@pytest.fixture
def ran(debiasbench: Cli) -> Path:
    """A submission of five real runs."""
    for seed in range(5):
        made = debiasbench("run", "--method", "erm", "--dataset", "toy", "--seed", str(seed))
        assert made.exit_code == 0, made.stderr
    words = [word for key, value in OPTIONS.items() for word in (f"--{key}", value)]
    result = debiasbench("submit", "prepare", "mine", *words)
    assert result.exit_code == 0, result.stderr
    assert "git add submissions/mine" in result.stdout
    for path, record in read_all([Path("submissions/mine")])[0]:
        if (record.provenance.git or "").endswith("+changes"):  # of whoever develops debiasbench
            edit(path, set_at("provenance", "git", value=None))
    return Path("submissions/mine")


def test_a_real_submission_is_checked_reproduced_and_trusted(debiasbench: Cli, ran: Path) -> None:
    result = debiasbench("submit", "check", ran)
    assert (result.exit_code, result.stderr) == (0, ""), result.stdout
    result = debiasbench("submit", "trust", ran, "--write", "trust.json", "--commit", "abc")
    assert result.exit_code == 0, result.stderr
    trust = read_trust(Path("trust.json"))
    assert {one.level for one in trust.values()} == {"listed"}
    again = ("submit", "reproduce", ran, "--nonce", "abc", "--results", "again")
    result = debiasbench(*again, "--write", "trust.json")
    assert result.exit_code == 0, result.stderr
    assert "agrees: all predictions are equal" in result.stdout
    assert len(list(Path("again").glob("*.json"))) == 1
    trust = read_trust(Path("trust.json"))
    assert {(one.level, one.commit) for one in trust.values()} == {("reproduced", "abc")}
    table = debiasbench("leaderboard", "results")
    assert "- One record run again by maintainers (✓✓): erm.\n" in table.stdout
    row = json.loads(debiasbench("leaderboard", "results", "--format", "json").stdout)[0]["rows"][0]
    assert row["trust"] == "reproduced"


def test_a_forged_submission_is_not_reproduced(debiasbench: Cli, ran: Path) -> None:
    trained_elsewhere = debiasbench(
        "run", "--method", "erm", "--dataset", "toy", "--seed", "9", "--results", "nine"
    )
    assert trained_elsewhere.exit_code == 0
    other = json.loads(next(Path("nine").glob("*.json")).read_text())
    predictions = next(Path("nine").glob("*.safetensors")).read_bytes()
    for path, record in read_all([ran])[0]:  # the result of another seed under every id
        data = {**other, "id": record.id, "spec": json.loads(path.read_text())["spec"]}
        file = path.with_name(path.stem + ".predictions.safetensors")
        data["predictions"] = {**other["predictions"], "file": file.name}
        path.write_text(json.dumps(data))
        file.write_bytes(predictions)
    result = debiasbench("submit", "reproduce", ran, "--nonce", "abc", "--results", "again")
    assert result.exit_code == 9
    assert "DIFFERS: predictions differ, although code, versions and hardware" in result.stdout
    assert "1 of 1 run did not agree, so the whole submission is held" in result.stderr
    check = debiasbench("submit", "check", ran)
    assert check.exit_code == 9
    assert "E07" in check.stdout


def test_results_may_not_be_written_into_the_submission(debiasbench: Cli, ran: Path) -> None:
    words = ("--nonce", "abc", "--results", ran / "records")
    result = debiasbench("submit", "reproduce", ran, *words)
    assert result.exit_code == 2
    assert "--results must not be in the folder of the submission" in result.stderr


# --- preparing and levels ---------------------------------------------------------------------


def test_a_submission_is_prepared_with_what_the_records_say(tmp_path: Path) -> None:
    seeds(tmp_path / "results", 5, MINE, provenance=provenance())
    prepared(tmp_path / "mine", [tmp_path / "results"], OPTIONS)
    result = checked(tmp_path / "mine")
    assert [f.code for found in result.findings.values() for f in found] == ["E00", "E00"]
    text = (tmp_path / "mine" / "submission.toml").read_text()
    assert 'distribution = "acme"' in text
    assert 'sha256 = "TODO"' in text
    with pytest.raises(OptionError, match="exists already"):
        prepared(tmp_path / "mine", [tmp_path / "results"], {})
    with pytest.raises(OptionError, match="not a valid name"):
        prepared(tmp_path / "Mine", [tmp_path / "results"], {})
    with pytest.raises(RecordError, match="no record to submit of method lff"):
        prepared(tmp_path / "lff", [tmp_path / "results"], {}, "lff")
    trained(tmp_path / "results", SPEC)
    with pytest.raises(RecordError, match=r"methods of acme 1\.0 and debiasbench 1: make"):
        prepared(tmp_path / "both", [tmp_path / "results"], {})


def test_levels_only_rise(tmp_path: Path) -> None:
    file = tmp_path / "trust.json"
    assert raised(file, {"a": Trust("verified", "2026-01-01")}) == ["a"]
    assert raised(file, {"a": Trust("listed", "2026-01-02")}) == []
    assert raised(file, {"a": Trust("reproduced", "2026-01-03", "abc", "log")}) == ["a"]
    assert read_trust(file)["a"] == Trust("reproduced", "2026-01-03", "abc", "log")
    file.write_text('{"a": {"level": "best", "date": "now"}}')
    with pytest.raises(RecordError, match="the level of 'a' is 'best'; levels are listed"):
        read_trust(file)
    file.write_text("[]")
    with pytest.raises(RecordError, match="not a file of trust levels"):
        read_trust(file)


def test_a_spec_that_two_parties_ran_is_independent(tmp_path: Path) -> None:
    known = published(tmp_path)
    place = submission(tmp_path, SPEC)
    write_about(place)
    later = provenance(started="2027-01-01T00:00:00+00:00")
    for seed in range(5):
        trained(
            place / "records",
            replace(SPEC, seed=seed),
            ((9, 2, 3, 10), (10, 4, 6, 9), (10, 3, 6, 9)),
            noise=seed + 9,
            provenance=later,
        )
    found = levels(checked(place, [known]))
    assert sorted(found.values()) == ["independent"] * 3 + ["listed"] * 2
    copies = tmp_path / "submissions" / "copy"
    prepared(copies, [known], OPTIONS)
    assert set(levels(checked(copies, [known])).values()) <= {"", "listed"}
