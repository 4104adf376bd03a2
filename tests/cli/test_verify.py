"""`debiasbench verify` names contradictory records; `leaderboard` leaves them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.records.beside import PREDICTIONS
from debiasbench.records.reading import read
from tests.records.test_record import SPEC
from tests.records.test_upgrade import BF16, spec_with, written
from tests.records.test_verify import FORGERIES, edit, honest, set_at

Cli = Callable[..., Result]
RESULTS = Path("results")


def seeds(number: int) -> list[Path]:
    return [honest(RESULTS, replace(SPEC, seed=seed)) for seed in range(number)]


def test_the_report_in_json_stands_alone_on_stdout(debiasbench: Cli) -> None:
    seeds(1)
    Path("rows.txt").touch()
    words = ("--rows", "rows.txt", "--add-rows", "--migrate", "--format", "json")
    result = debiasbench("verify", *words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)
    assert "Added 1 row to rows.txt" in result.stderr


def test_honest_records_are_verified(debiasbench: Cli) -> None:
    seeds(3)
    result = debiasbench("verify")
    assert result.stdout == "3 records: 3 verified\n"
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_record_that_was_just_made_is_verified(debiasbench: Cli) -> None:
    for method in ("erm", "dfr", "rest"):
        made = debiasbench("run", "--method", method, "--dataset", "toy")
        assert made.exit_code == 0, made.stderr
    assert debiasbench("verify").stdout == "3 records: 3 verified\n"


def test_bad_records_are_named_with_what_and_where_and_counted(debiasbench: Cli) -> None:
    paths = seeds(4)
    edit(paths[1], set_at("outcomes", "last", "test", "hits", value=[10, 5, 4, 10]))
    edit(paths[2], set_at("cost", "density", value=1.0))
    paths[3].with_name(paths[3].stem + PREDICTIONS).unlink()
    (RESULTS / "package.json").write_text("{}")
    result = debiasbench("verify", "results")
    assert result.exit_code == 9
    assert result.stderr == "Error: 3 bad records: see above\n"
    lines = result.stdout.splitlines()
    assert lines[0].startswith("results/package.json is not a debiasbench record")
    assert (
        f"{paths[1]} contradicts itself (E04): hits of last in test: 10 instead of 9 in group 0 "
        "(class a, bias x), by the predictions"
    ) in lines
    assert lines[-3].startswith(f"{paths[2]} contradicts itself (E04): the density is 1.0")
    assert lines[-2].startswith(f"{paths[3]} cannot be verified: its predictions are missing")
    assert lines[-1] == (
        "5 records: 1 verified, 1 without predictions, 2 contradictory, 1 unreadable"
    )


def test_a_report_in_json_has_the_code_of_each_finding(debiasbench: Cli) -> None:
    paths = seeds(2)
    edit(paths[1], set_at("outcomes", "last", "test", "hits", value=[10, 5, 4, 10]))
    result = debiasbench("verify", "--format", "json")
    assert result.exit_code == 9
    report = json.loads(result.stdout)
    assert report["bad"] == 1
    assert {(f["file"], f["code"]) for f in report["findings"]} == {(str(paths[1]), "E04")}


def test_the_leaderboard_can_verify_instead_of_making_tables(debiasbench: Cli) -> None:
    paths = seeds(2)
    result = debiasbench("leaderboard", "--verify")
    assert (result.stdout, result.exit_code) == ("2 records: 2 verified\n", 0)
    edit(paths[1], set_at("cost", "density", value=1.0))
    result = debiasbench("leaderboard", "results", "--verify")
    assert result.exit_code == 9
    assert "contradicts itself (E04): the density is 1.0" in result.stdout


def test_missing_predictions_are_not_an_error(debiasbench: Cli) -> None:
    (path,) = seeds(1)
    path.with_name(path.stem + PREDICTIONS).unlink()
    result = debiasbench("verify", path)
    assert result.exit_code == 0
    assert result.stdout.endswith("1 record: 0 verified, 1 without predictions\n")


def test_a_place_that_does_not_exist_is_an_error(debiasbench: Cli) -> None:
    result = debiasbench("verify", "nowhere")
    assert result.exit_code == 9
    assert result.stderr.startswith("Error: No results at nowhere")


@pytest.mark.parametrize("kind", FORGERIES)
def test_the_leaderboard_leaves_a_forged_record_out_and_names_it(
    debiasbench: Cli, kind: str
) -> None:
    honest(RESULTS, replace(SPEC, seed=1))
    path = honest(RESULTS)
    if kind == "a failure that is hidden":
        edit(path, set_at("nulls", value={}))
    FORGERIES[kind][0](path)
    result = debiasbench("leaderboard", "--format", "csv")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"Warning: {path} contradicts itself: ")
    assert len(result.stderr.splitlines()) == 1
    assert replace(SPEC, seed=1).id in result.stdout
    assert SPEC.id not in result.stdout
    strict = debiasbench("leaderboard", "--strict")
    assert strict.exit_code == 9


def test_a_page_is_not_made_from_a_forged_record(debiasbench: Cli) -> None:
    (path,) = seeds(1)
    Path("page.md").write_text("<!-- debiasbench leaderboard results -->\n<!-- /debiasbench -->\n")
    assert debiasbench("leaderboard", "--update", "page.md").exit_code == 0
    edit(path, set_at("outcomes", "last", "test", "hits", value=[10, 10, 10, 10]))
    result = debiasbench("leaderboard", "--check", "page.md")
    assert result.exit_code == 9
    assert "contradicts itself: hits of last in test: 10 instead of 9 in group 0" in result.stderr
    assert "more)" in result.stderr


def test_a_table_says_which_of_its_records_are_not_verified(debiasbench: Cli) -> None:
    paths = seeds(3)
    for path in paths[1:]:
        path.with_name(path.stem + PREDICTIONS).unlink()
    result = debiasbench("leaderboard")
    assert result.stderr == ""
    assert "- Not verified, because predictions are missing: erm (seeds 1, 2).\n" in result.stdout
    assert "| 3 |" in " ".join(result.stdout.split())


def test_migration_rewrites_records_of_schema_1_and_verifies_them(debiasbench: Cli) -> None:
    RESULTS.mkdir()
    old = written(RESULTS, arithmetic=BF16)
    current = honest(RESULTS, replace(SPEC, seed=1))
    text = current.read_text()
    spec = spec_with(precision="bf16")
    result = debiasbench("verify", "--migrate")
    assert result.stdout.splitlines()[0] == f"{old} -> {spec.stem}.json"
    assert not old.exists()
    assert json.loads((RESULTS / f"{spec.stem}.json").read_text())["id"] == spec.id
    assert read(RESULTS / f"{spec.stem}.json").spec == spec
    assert current.read_text() == text


def test_migration_names_a_record_whose_new_name_is_taken(debiasbench: Cli) -> None:
    honest(RESULTS)
    old = written(RESULTS, training={"precision": "fp32"})
    result = debiasbench("verify", "--migrate")
    assert result.stderr.startswith(f"Warning: {old} cannot become {SPEC.stem}.json, which exists")
    assert old.exists()
