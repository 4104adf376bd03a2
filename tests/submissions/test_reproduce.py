"""A sample of a submission is run again; levels of trust follow, and none is lowered."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.common.errors import OptionError, RecordError
from debiasbench.records.reading import read, read_all
from debiasbench.records.spec_file import read_specs, write_specs
from debiasbench.records.trust import Trust, raised, read_trust
from debiasbench.submissions.agreement import compared, obstacle
from debiasbench.submissions.check import checked
from debiasbench.submissions.prepare import prepared
from debiasbench.submissions.reproduce import sample
from tests.records.test_record import SPEC
from tests.records.test_verify import edit, set_at
from tests.records.training import seeds, trained
from tests.submissions.folders import MINE, VALUES, provenance, published, submission

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


def test_a_training_that_failed_is_always_in_the_sample(tmp_path: Path) -> None:
    records = [read(path) for path in seeds(tmp_path, 5, MINE)]
    records[3] = replace(records[3], status="failed")
    for nonce in map(str, range(9)):
        assert records[3] in sample(records, nonce)[0]


def test_records_of_one_machine_must_be_equal_and_others_near(tmp_path: Path) -> None:
    record = replace(read(seeds(tmp_path, 1, MINE)[0]), provenance=provenance(code="c"))
    same = compared(record, record, 0.0, equal=True)
    assert (same.ok, same.message) == (True, "all predictions are equal")
    assert not compared(record, record, 0.0, equal=False).ok  # nothing explains the difference
    for made in (
        provenance(code="d"),
        provenance(code="c", hardware="another"),
        provenance(code="c", deterministic=False),
        provenance(code="c", versions={"torch": "3"}),
    ):
        elsewhere = replace(record, provenance=made)
        assert compared(record, elsewhere, 0.0, equal=False).ok
        better = read(trained(tmp_path / "b", MINE, ((10, 10, 10, 10),)))
        far = replace(better, provenance=made)
        result = compared(record, far, 0.0, equal=False)
        assert not result.ok
        explained = r"test samples and seeds explain a difference of at most 0\.\d{4}; not equal"
        assert re.search(explained, result.message)


def test_a_record_cannot_say_that_it_need_not_be_equal(tmp_path: Path) -> None:
    record = read(seeds(tmp_path, 1, MINE)[0])
    again = replace(record, provenance=provenance(code="c"))
    claims = replace(record, provenance=provenance(code="c", deterministic=False))
    assert not compared(claims, again, 0.0, equal=False).ok
    assert "does not say with which code" in (obstacle(record, again) or "")


def test_the_seeds_of_a_submission_do_not_decide_how_far_a_rerun_may_be(tmp_path: Path) -> None:
    # accuracies of 0.05 to 1 would explain any result; the published rows vary less
    place = submission(tmp_path, number=1)
    for seed, right in enumerate((10, 0, 10, 0, 10)):
        epochs = ((9, 1, 2, 10), (right, right, 10, 10), (10, 3, 5, 9))
        trained(place / "records", replace(MINE, seed=seed), epochs, noise=seed)
    known = published(tmp_path)
    result = checked(place, [known])
    assert set(result.spreads.values()) == {0.0}
    merged = checked(place, [known, place / "records"])  # its own records count no more then
    assert set(merged.spreads.values()) == {0.0}


def test_other_data_code_or_supervision_are_obstacles(tmp_path: Path) -> None:
    record = replace(read(seeds(tmp_path, 1, MINE)[0]), provenance=provenance(code="c"))
    assert obstacle(record, record) is None
    other = replace(record.task, fingerprint="beef")
    assert obstacle(record, replace(record, task=other)) == "the data are not those of the record"
    more = replace(record, supervision=replace(record.supervision, train="groups"))
    assert "the method declares" in (obstacle(record, more) or "")
    code = provenance(code="c", plugin_code={"method": "d"})
    assert "the code of the method is not" in (
        obstacle(record, replace(record, provenance=code)) or ""
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


def rerun(debiasbench: Cli, ran: Path, *words: object) -> Result:
    """Run the sample of a submission again, and compare it."""
    result = debiasbench("submit", "sample", ran, "--nonce", "abc", "--out", "specs.json")
    assert result.exit_code == 0, result.stderr
    result = debiasbench("submit", "reproduce", "specs.json", "--results", "again")
    assert result.exit_code == 0, result.stderr
    return debiasbench("submit", "compare", ran, "again", "--nonce", "abc", *words)


def test_a_real_submission_is_checked_run_again_and_trusted(
    debiasbench: Cli, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = debiasbench("submit", "check", ran)
    assert (result.exit_code, result.stderr) == (0, ""), result.stdout
    result = debiasbench("submit", "trust", ran, "--write", "trust.json", "--commit", "abc")
    assert result.exit_code == 0, result.stderr
    trust = read_trust(Path("trust.json"))
    assert {one.level for one in trust.values()} == {"listed"}
    about = tomllib.loads((ran / "submission.toml").read_text())
    assert {one.who for one in trust.values()} == {about["who"]}
    result = rerun(debiasbench, ran, "--write", "trust.json")
    assert "agrees: all predictions are equal" in result.stdout
    assert len(list(Path("again").glob("*.json"))) == 1
    specs = Path("specs.json").read_text()
    assert "outcomes" not in specs
    # it names no suite, so it is not verified, and a run that agrees does not change that
    assert result.exit_code == 9
    assert "mine is not verified: no higher level is written" in result.stderr
    assert read_trust(Path("trust.json")) == trust
    full = ("submit", "reproduce", "specs.json", "--results", "again")
    assert "--results again is not empty" in debiasbench(*full).stderr
    for words in (("compare", ran, "again", "--nonce", "abc"), ("trust", ran, "--independent")):
        with monkeypatch.context() as patched:
            module = sys.modules["debiasbench.cli.submit"]  # the group of commands has its name
            patched.setattr(module, "_checked", as_verified)
            result = debiasbench("submit", *words, "--write", "trust.json", "--commit", "abc")
        assert result.exit_code == 0, result.stderr
        level = "reproduced" if words[0] == "compare" else "independent"
        trust = read_trust(Path("trust.json"))
        assert {(one.level, one.commit) for one in trust.values()} == {(level, "abc")}
    for file in ran.glob("records/*"):
        (Path("results") / file.name).write_bytes(file.read_bytes())
    table = debiasbench("leaderboard", "results")
    assert "(✓✓✓): erm.\n" in table.stdout
    row = json.loads(debiasbench("leaderboard", "results", "--format", "json").stdout)[0]["rows"][0]
    assert row["trust"] == "independent"


def as_verified(folder: Path, _: object) -> object:
    """The result of checking a submission, as if it had named a suite."""
    return replace(checked(folder), level="verified")


def test_the_submitted_files_are_no_second_run_and_none_may_be_missing(
    debiasbench: Cli, ran: Path
) -> None:
    copied = ("submit", "compare", ran, "copy", "--nonce", "abc")
    shutil.copytree(ran / "records", "copy")
    result = debiasbench(*copied)
    assert result.exit_code == 9
    assert "DIFFERS: the record is the submitted file, not another run" in result.stdout
    for file in Path("copy").glob("*"):
        file.unlink()
    result = debiasbench(*copied)
    assert result.exit_code == 9
    assert "DIFFERS: there is no record of a new run of it" in result.stdout
    result = debiasbench("submit", "compare", ran, ran / "records", "--nonce", "abc")
    assert result.exit_code == 2
    assert "must not be in the folder of the submission" in result.stderr


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
    result = rerun(debiasbench, ran)
    assert result.exit_code == 9
    assert "DIFFERS: predictions differ, although code, versions and hardware" in result.stdout
    assert "1 of 1 run did not agree, so the whole submission is held" in result.stderr
    check = debiasbench("submit", "check", ran)
    assert check.exit_code == 9
    assert "E07" in check.stdout


def test_specs_of_other_code_are_not_run(debiasbench: Cli, tmp_path: Path) -> None:
    (record,) = (read(path) for path in seeds(tmp_path, 1, replace(SPEC, revisions={"rules": 99})))
    write_specs(Path("specs.json"), [record.spec])
    assert read_specs(Path("specs.json")) == [record.spec]
    result = debiasbench("submit", "reproduce", "specs.json", "--results", "again")
    assert result.exit_code == 9
    assert "other revisions (selection rules: 99 before" in result.stderr
    Path("specs.json").write_text("{")
    assert "is not a file of specs" in debiasbench("submit", "reproduce", "specs.json").stderr


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


def test_records_of_one_name_are_not_overwritten(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        seeds(tmp_path / folder, 1, MINE, provenance=provenance())
    with pytest.raises(RecordError, match="There are several records toy-"):
        prepared(tmp_path / "mine", [tmp_path / "a", tmp_path / "b"], OPTIONS)
    assert not (tmp_path / "mine").exists()


def test_the_level_of_a_file_only_rises_and_another_file_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "trust.json"
    assert raised(file, {"a": Trust("verified", "2026-01-01", "1")}) == ["a"]
    assert raised(file, {"a": Trust("listed", "2026-01-02", "1")}) == []
    assert raised(file, {"a": Trust("reproduced", "2026-01-03", "1", "abc", "log")}) == ["a"]
    assert read_trust(file)["a"] == Trust("reproduced", "2026-01-03", "1", "abc", "log")
    assert raised(file, {"a": Trust("listed", "2026-01-04", "2")}) == ["a"]
    file.write_text('{"a": {"level": "best", "date": "now", "sha256": ""}}')
    with pytest.raises(RecordError, match="the level of 'a' is 'best'; levels are listed"):
        read_trust(file)
    file.write_text("[]")
    with pytest.raises(RecordError, match="not a file of trust levels"):
        read_trust(file)
