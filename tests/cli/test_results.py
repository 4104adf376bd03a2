"""`debiasbench results`: what a folder of records holds is listed, described, compared, removed."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.common.locks import locked
from debiasbench.records.beside import PREDICTIONS
from debiasbench.records.reading import read
from debiasbench.specs.command import command
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.spec import Choice
from tests.records.test_record import SPEC, make_record
from tests.records.test_verify import edit, honest, set_at

Cli = Callable[..., Result]
RESULTS = Path("results")


@pytest.fixture
def cli(debiasbench: Cli) -> Cli:
    """Make two methods with two seeds, and a failed run."""
    from debiasbench.records.record import to_json

    for seed in (0, 1):
        honest(RESULTS, replace(SPEC, seed=seed))
        lff = replace(SPEC, method=Choice("lff", {"q": 0.7}), seed=seed)
        honest(RESULTS, lff, (9, 5 + seed, 4, 9))
    failed = make_record(replace(SPEC, seed=7), failed=True)
    (RESULTS / f"{failed.spec.stem}.json").write_text(to_json(failed))
    return debiasbench


def listed(cli: Cli, *words: object) -> list[dict[str, str]]:
    result = cli("results", "ls", *words, "--format", "csv")
    assert result.exit_code == 0, result.output
    return list(csv.DictReader(io.StringIO(result.stdout)))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ((), [("erm", "0"), ("erm", "1"), ("erm", "7"), ("lff", "0"), ("lff", "1")]),
        (("--method", "lff"), [("lff", "0"), ("lff", "1")]),
        (("--seed", "0,7"), [("erm", "0"), ("erm", "7"), ("lff", "0")]),
        (("--failed",), [("erm", "7")]),
        (("--method", "erm", "--seed", "0-5"), [("erm", "0"), ("erm", "1")]),
        (("--dataset", "waterbirds"), []),
    ],
)
def test_ls_lists_what_is_chosen(
    cli: Cli, words: tuple[str, ...], found: list[tuple[str, str]]
) -> None:
    assert [(row["method"], row["seed"]) for row in listed(cli, *words)] == found


def test_ls_has_the_same_records_in_every_format(cli: Cli) -> None:
    rows = listed(cli)
    data = json.loads(cli("results", "ls", "--format", "json").stdout)
    assert [row["id"] for row in data] == [row["id"] for row in rows]
    assert data[0]["accuracy"] == pytest.approx(0.7)
    assert [row["status"] for row in data].count("failed: NonFiniteLoss") == 1
    for form in ("text", "markdown"):
        text = cli("results", "ls", "--format", form).stdout
        assert all(row["id"] in text for row in rows)
        assert "70.0" in text
    assert cli("results", "ls").stdout.endswith("5 records, 1 of failed runs\n")


def test_ls_names_bad_records_on_stderr_and_escapes_what_they_hold(cli: Cli) -> None:
    (RESULTS / "bad.json").write_text("{}")
    honest(RESULTS, replace(SPEC, method=Choice("=cmd|\x1b[31m")))
    result = cli("results", "ls", "--format", "csv")
    assert "bad.json is not a debiasbench record" in result.stderr
    assert "'=cmd" in result.stdout
    for form in ("text", "csv", "markdown", "json"):
        assert "\x1b" not in cli("results", "ls", "--format", form).output


def test_show_describes_a_record_by_file_id_and_first_digits(cli: Cli) -> None:
    path = honest(RESULTS, SPEC)
    texts = {cli("results", "show", name).stdout for name in (path, SPEC.id, SPEC.id[:8])}
    (text,) = texts
    for part in (
        "erm on toy with mlp, seed 0",
        "Test accuracy per group",
        "val_worst_group",
        "debiasbench run --method erm --dataset toy --model mlp --seed 0",
        f"Id: {SPEC.id}",
        "Active parameters:",
        str(path),
        f"{path.stem}{PREDICTIONS}",
        "Verified: hits follow from the predictions",
    ):
        assert part in text


def test_show_says_what_is_wrong_with_a_record(cli: Cli) -> None:
    path = honest(RESULTS, SPEC)
    path.with_name(path.stem + PREDICTIONS).unlink()
    assert "Not verified: its predictions are missing" in cli("results", "show", path).stdout
    edit(path, set_at("cost", "density", value=1.0))
    assert "contradicts itself:\nthe density is 1.0" in cli("results", "show", path).stdout
    (failed,) = listed(cli, "--failed")
    assert (
        "NonFiniteLoss in stage 'train' at step 12" in cli("results", "show", failed["id"]).stdout
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0123456789abcdef", "There is no record '0123456789abcdef' in results"),
        ("abc", "is neither a file nor an id"),
        ("erm", "is neither a file nor an id"),
        ("none.json", "none.json cannot be read: No such file or directory"),
        ("results/", "results cannot be read: Is a directory"),
    ],
)
def test_a_record_that_is_not_there_is_an_error(cli: Cli, name: str, message: str) -> None:
    for words in (("show", name), ("diff", name, SPEC.id), ("rm", name, "--yes")):
        result = cli("results", *words)
        assert result.exit_code == 9
        assert message in result.stderr


def test_digits_that_stand_for_several_records_are_refused(cli: Cli) -> None:
    path = honest(RESULTS, SPEC)
    (RESULTS / "copy.json").write_text(path.read_text())
    (RESULTS / f"copy-{SPEC.id}.json").write_text(path.read_text())
    result = cli("results", "show", SPEC.id[:6])
    assert "stands for 2 records" in result.stderr
    assert result.exit_code == 9


def test_diff_shows_options_accuracies_and_samples_by_group(cli: Cli) -> None:
    lff = replace(SPEC, method=Choice("lff", {"q": 0.7}), seed=1)
    text = cli("results", "diff", SPEC.id, lff.id).stdout
    lines = [line.split() for line in text.splitlines()]
    assert ["spec.method.name", "erm", "lff"] in lines
    assert ["spec.method.options.q", "absent", "0.7"] in lines
    assert ["spec.seed", "0", "1"] in lines
    assert "Of 40 test samples, 8 are right in only one" in text
    assert ["a", "with", "y", "10", "1", "2"] in lines
    assert ["b", "with", "y", "10", "1", "0"] in lines
    assert ["val_unbiased", "unbiased", "70.0", "70.0", "+0.0"] in lines
    assert "provenance.started" not in text


def test_diff_of_a_record_with_itself_has_no_difference(cli: Cli) -> None:
    text = cli("results", "diff", SPEC.id, SPEC.id).stdout
    assert "Equal in spec, data, code, machine and cost" in text
    assert "Of 40 test samples, 0 are right in only one" in text


def test_diff_says_why_samples_are_not_compared(cli: Cli) -> None:
    (failed,) = listed(cli, "--failed")
    text = cli("results", "diff", SPEC.id, failed["id"]).stdout
    assert "Samples are not compared: " in text
    assert cli("results", "diff", SPEC.id, SPEC.id, "--select", "best").exit_code == 2


def test_rm_removes_a_record_with_its_files_and_nothing_else(cli: Cli) -> None:
    before = set(RESULTS.iterdir())
    result = cli("results", "rm", "--method", "lff", "--seed", "1", "--yes")
    assert result.exit_code == 0, result.output
    gone = {file for file in before if "-lff-1-" in file.name}
    assert len(gone) == 2
    assert {file for file in RESULTS.iterdir() if file.name != ".locks"} == before - gone
    assert all(str(file) in result.stdout for file in gone)
    assert "Removed 1 record, 2 files" in result.stdout


def test_rm_needs_a_confirmation_and_a_choice(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(RESULTS.iterdir())
    assert "Add --yes" in cli("results", "rm", "--failed").stderr
    assert "Nothing says which records" in cli("results", "rm", "--yes").stderr
    assert cli("results", "rm", "--method", "none", "--yes").stdout.startswith("No record")
    assert set(RESULTS.iterdir()) == before


def test_rm_refuses_a_spec_that_is_being_run_and_removes_the_others(cli: Cli) -> None:
    with locked(RESULTS, SPEC.stem):
        result = cli("results", "rm", "--method", "erm", "--yes")
    assert result.exit_code == 8
    assert "is being run by another process" in result.stderr
    assert [(row["method"], row["seed"]) for row in listed(cli)] == [
        ("erm", "0"),
        ("lff", "0"),
        ("lff", "1"),
    ]


def test_rm_leaves_a_file_that_a_record_claims_but_that_is_not_its_own(cli: Cli) -> None:
    other = honest(RESULTS, replace(SPEC, seed=1))
    path = honest(RESULTS, replace(SPEC, seed=30))
    own = path.with_name(path.stem + PREDICTIONS)
    for name in (other.stem + PREDICTIONS, other.name, "notes.txt", "../outside"):
        (RESULTS / "notes.txt").touch()
        Path("outside").touch()
        honest(RESULTS, replace(SPEC, seed=30))
        edit(path, set_at("predictions", "file", value=name))
        assert cli("results", "rm", path, "--yes").exit_code == 0
        assert not path.exists()
        assert own.exists()
        assert other.exists()
        assert other.with_name(other.stem + PREDICTIONS).exists()
        assert (RESULTS / "notes.txt").exists()
        assert Path("outside").exists()


def test_rm_removes_a_link_and_not_what_it_leads_to(cli: Cli) -> None:
    path = honest(Path("elsewhere"), replace(SPEC, seed=40))
    link = RESULTS / path.name
    link.symlink_to(path.absolute())
    assert cli("results", "rm", link, "--yes").exit_code == 0
    assert path.exists()
    assert not link.is_symlink()


def test_the_command_of_a_spec_makes_the_same_spec(plugins: Plugins, debiasbench: Cli) -> None:
    result = debiasbench(
        *("run", "--method", "rest", "--dataset", "toy", "--model", "mlp", "--seed", "3"),
        *("--set", "density=0.2", "--set", "dataset.ratio=0.25", "--set", "train.lr=0.01"),
        *("--set", "model.hidden=[7,5]", "--epochs", "1", "--quiet"),
    )
    assert result.exit_code == 0, result.output
    (path,) = RESULTS.glob("*.json")
    words = command(read(path).spec)
    import shlex

    again = debiasbench(*shlex.split(words)[1:], "--quiet")
    assert again.exit_code == 0, again.output
    assert "Already done" in again.stdout


def test_the_command_names_an_option_that_is_also_a_word_of_the_command_in_full() -> None:
    words = command(replace(SPEC, method=Choice("acme", {"model": "big", "q": 0.7})))
    assert "--set method.model=big --set q=0.7" in words


def test_the_command_of_a_sparse_spec_has_its_sparsifier(plugins: Plugins) -> None:
    spec = make_spec(
        plugins, dataset="toy", method="erm", sparse="rigl", sparse_options={"density": "0.1"}
    )
    words = command(spec)
    assert "--sparse rigl" in words
    assert "sparse.density=0.1" in words


def test_packed_records_are_read_like_their_folder(
    debiasbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEBIASBENCH_CACHE", str(tmp_path / "cache"))
    words = ("--dataset", "toy", "--epochs", 1, "--device", "cpu", "--quiet")
    debiasbench("compare", "erm", "upweight", *words, "--seeds", "0-1")
    before = debiasbench("leaderboard", "results", "--format", "csv").stdout
    told = debiasbench("results", "pack", "packed/s.records.tar.xz")
    assert told.exit_code == 7  # the folder does not exist
    Path("packed").mkdir()
    told = debiasbench("results", "pack", "packed/s.records.tar.xz")
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith("Packed 4 records into packed/s.records.tar.xz: ")
    Path("above/deep").mkdir(parents=True)
    shutil.copy("packed/s.records.tar.xz", "above/deep")
    Path("above/.hidden").mkdir()
    Path("above/.hidden/t.records.tar.xz").write_bytes(b"not read")
    for place in ("packed", "packed/s.records.tar.xz", "above"):
        assert debiasbench("leaderboard", place, "--format", "csv").stdout == before
        assert "4 verified" in debiasbench("verify", place).stdout
        assert debiasbench("leaderboard", place, "--format", "csv").stdout == before
    # beside what maintainers state of the records
    first = json.loads(next(Path("results").glob("toy-erm-0-*.json")).read_text())["id"]
    Path("packed/withdrawn.toml").write_text(f'[{first}]\nreason = "wrong"\ndate = 2026-11-27\n')
    for place in ("packed", "packed/s.records.tar.xz"):
        assert "withdrawn on 2026-11-27" in debiasbench("leaderboard", place).stdout
    # in a folder with other records, of which some are the same
    debiasbench("results", "rm", "--seed", 0, "--yes")
    Path("packed/s.records.tar.xz").rename("results/s.records.tar.xz")
    told = debiasbench("results", "pack", "again.records.tar.xz")
    assert told.stdout.startswith("Packed 4 records into")  # each once
    assert "4 verified" in debiasbench("verify", "again.records.tar.xz").stdout
    assert debiasbench("leaderboard", "results", "--format", "csv").stdout == before
    refused = debiasbench("results", "rm", "--seed", 0, "--yes")
    assert refused.exit_code == 9
    assert "is in an archive, which is not changed" in refused.stderr
    Path("results/s.records.tar.xz").write_bytes(b"no archive")
    broken = debiasbench("leaderboard", "results")
    assert broken.exit_code == 9
    assert "s.records.tar.xz is damaged or no archive of records" in broken.stderr
