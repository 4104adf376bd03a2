"""`debiasbench.frame`: records, runs, files and folders become a data frame with all options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from debiasbench import frame
from debiasbench.common.errors import OptionError, RecordError
from debiasbench.records.record import to_json
from debiasbench.records.store import Run
from tests.leaderboard.test_leaderboard import run


def test_folders_files_runs_and_records_give_the_same_rows(tmp_path: Path) -> None:
    records = [run("erm", seed) for seed in (0, 1)]
    paths = [tmp_path / f"{record.id}.json" for record in records]
    for record, path in zip(records, paths, strict=True):
        path.write_text(to_json(record))
    expected = frame(records)
    assert sorted(expected["seed"].unique()) == [0, 1]
    runs = [Run(record, path, fresh=True) for record, path in zip(records, paths, strict=True)]
    for results in (runs, paths, [str(path) for path in paths], [runs[0], paths]):
        assert frame(results).equals(expected)
    for folder in (tmp_path, str(tmp_path), [tmp_path, records]):  # a record counts once
        assert sorted(frame(folder)["id"]) == sorted(expected["id"])


def test_every_option_has_a_column_and_none_is_json() -> None:
    row = frame(record := run("rest", 0, options={"density": 0.1, "layers": [1, 2]})).iloc[0]
    assert row["method.density"] == 0.1
    assert row["method.layers"] == (1, 2)
    assert row["train.lr"] == record.spec.training["lr"]
    assert row["train.precision"] == "fp32"
    assert not {"options", "training", "sparse_options"} & set(row.index)


def test_a_bad_file_is_left_out_with_a_warning(tmp_path: Path) -> None:
    record = run("erm", 0)
    (tmp_path / "good.json").write_text(to_json(record))
    (tmp_path / "bad.json").write_text("{")
    with pytest.warns(UserWarning, match=r"bad\.json is not valid JSON"):
        assert set(frame(tmp_path)["id"]) == {record.id}


@pytest.mark.parametrize("others", [0, 1])
def test_a_record_that_contradicts_itself_is_left_out_with_a_warning(
    others: int, tmp_path: Path
) -> None:
    data = json.loads(to_json(run("erm", 0)))
    data["outcomes"]["last"]["test"]["metrics"]["unbiased"] = 0.99
    (tmp_path / "better.json").write_text(json.dumps(data))
    for seed in range(others):
        (tmp_path / "good.json").write_text(to_json(run("erm", 1 + seed)))
    with pytest.warns(UserWarning, match=r"better\.json contradicts itself"):
        assert len(set(frame(tmp_path).get("id", ()))) == others


def test_of_two_different_records_of_a_spec_the_first_is_used_with_a_warning(
    tmp_path: Path,
) -> None:
    for place, hits in (("a", (9, 9, 9, 9)), ("b", (1, 1, 1, 1))):
        (tmp_path / place).mkdir()
        (tmp_path / place / "x.json").write_text(to_json(run("erm", 0, hits)))
    with pytest.warns(UserWarning, match="two records of .* with different results; the first"):
        table = frame([tmp_path / "a", tmp_path / "b"])
    assert table[table.rule == "last"].average.item() == pytest.approx(0.9)


def test_what_is_not_a_result_is_named() -> None:
    with pytest.raises(OptionError, match="frame: 3 is not a result"):
        frame([3])  # type: ignore[list-item]
    with pytest.raises(RecordError, match="No results at nowhere"):
        frame("nowhere")


def test_no_results_are_an_empty_frame(tmp_path: Path) -> None:
    assert len(frame([])) == 0
    assert len(frame(tmp_path)) == 0
