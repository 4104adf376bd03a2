"""Columns of a table become features: numbers standardised by training, categories one-hot."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result

from debiasbench.common.errors import DataError, OptionError
from debiasbench.files.importing import EVERY, BadRows, Source, import_data
from tests.files.importing.birds import problems, write

HEAD = ("age", "job", "zone", "paid", "sex", "split")
Row = tuple[str, ...]


def rows(count: int = 120) -> list[Row]:
    """People whose pay follows their sex, apart from every fourth."""
    rng = random.Random(0)
    made = []
    for i in range(count):
        paid = i % 2
        sex = ("f", "m")[paid if i % 4 else 1 - paid]
        split = ("train", "train", "val", "test")[i // 4 % 4]
        job = rng.choice(["cook", "clerk", "smith"] if split == "train" else ["cook", "pilot"])
        made.append(
            (f"{rng.gauss(40, 9):.3f}", job, str(rng.randrange(1, 4)), str(paid), sex, split)
        )
    return made


def people(folder: Path, made: list[Row] | None = None) -> Source:
    table = write(folder / "people.csv", [HEAD, *(rows() if made is None else made)])
    return Source(table=table, label="paid", bias=("sex",), split="split", features=EVERY)


def test_features_are_those_of_an_independent_computation(tmp_path: Path) -> None:
    source = replace(people(tmp_path), categorical=("zone",))
    done = import_data("people", source, tmp_path)
    train = [row for row in rows() if row[5] == "train"]
    ages = [float(row[0]) for row in train]
    mean, std = statistics.fmean(ages), statistics.pstdev(ages)
    for name, split in done.task.splits().items():
        own = [row for row in rows() if row[5] == name]
        expected = [
            [
                (float(row[0]) - mean) / std,
                *(float(row[1] == job) for job in ("clerk", "cook", "smith")),
                *(float(row[2] == zone) for zone in ("1", "2", "3")),
            ]
            for row in own
        ]
        assert isinstance(split.x, torch.Tensor)
        assert split.x.dtype == torch.float32
        torch.testing.assert_close(split.x, torch.tensor(expected))
        assert split.y.tolist() == [int(row[3]) for row in own]
        assert split.bias.tolist() == ["fm".index(row[4]) for row in own]
    x = done.task.train.x
    assert isinstance(x, torch.Tensor)
    assert abs(float(x[:, 0].mean())) < 1e-6
    assert float(x[:, 0].std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_the_state_of_the_features_is_beside_the_data(tmp_path: Path) -> None:
    done = import_data("people", people(tmp_path), tmp_path)
    kept = json.loads((done.folder / "task.json").read_text())["more"]
    train = [row for row in rows() if row[5] == "train"]
    age, job, zone = kept["features"]
    assert age["column"] == "age"
    assert age["mean"] == pytest.approx(statistics.fmean(float(row[0]) for row in train))
    assert age["std"] == pytest.approx(statistics.pstdev(float(row[0]) for row in train))
    assert job == {"column": "job", "values": ["clerk", "cook", "smith"]}
    assert set(zone) == {"column", "mean", "std"}  # numbers, unless --categorical names it
    assert kept["source"]["images"] is None


def test_a_value_that_training_lacks_is_all_zero_and_a_warning(tmp_path: Path) -> None:
    done = import_data("people", people(tmp_path), tmp_path)
    pilots = [row[1] == "pilot" for row in rows() if row[5] == "test"]
    x = done.task.test.x
    assert isinstance(x, torch.Tensor)
    assert ((x[:, 1:4] == 0).all(1) == torch.tensor(pilots)).all()
    number = sum(row[1] == "pilot" for row in rows())
    assert any(f"in {number} rows: pilot" in warning for warning in done.warnings)


def test_all_bad_cells_are_listed_with_their_lines(tmp_path: Path) -> None:
    made = rows()
    made[1] = ("12a", *made[1][1:])
    made[3] = ("", *made[3][1:])
    made[4] = (made[4][0], "nan", *made[4][2:])
    made[6] = ("inf", *made[6][1:])
    made[8] = ("2_0", *made[8][1:])
    made[10] = (*made[10][:3], "", *made[10][4:])
    advice = "where most values are numbers. If they are categories, use --categorical age"
    assert problems("people", people(tmp_path, made), tmp_path) == [
        f"line 3: has '12a' in column 'age', {advice}",
        "line 5: has no value (column 'age')",
        "line 6: has no value (column 'job')",
        f"line 8: has 'inf' in column 'age', {advice}",
        f"line 10: has '2_0' in column 'age', {advice}",
        "line 12: has no label (column 'paid')",
    ]
    with pytest.raises(BadRows, match="6 of 120 rows cannot be imported"):
        import_data("people", people(tmp_path, made), tmp_path)
    done = import_data("people", people(tmp_path, made), tmp_path, skip_bad=True)
    assert sum(len(split) for split in done.task.splits().values()) == 114
    assert all(bool(torch.isfinite(s.x).all()) for s in done.task.splits().values())  # type: ignore[arg-type]


def test_numbers_are_those_of_the_training_split_that_is_drawn(tmp_path: Path) -> None:
    source = replace(people(tmp_path), split=None, features=("age",))
    x = import_data("people", source, tmp_path).task.train.x
    assert isinstance(x, torch.Tensor)
    assert x.shape == (84, 1)
    assert abs(float(x.mean())) < 1e-6


def test_the_bias_may_be_a_feature_and_the_label_may_not(tmp_path: Path) -> None:
    source = replace(people(tmp_path), features=("age", "sex"))
    done = import_data("people", source, tmp_path)
    x = done.task.train.x
    assert isinstance(x, torch.Tensor)
    assert torch.equal(x[:, 1:].argmax(1), done.task.train.bias)
    with pytest.raises(OptionError, match="Column 'paid' is used twice"):
        import_data("other", replace(source, features=("age", "paid")), tmp_path)
    with pytest.raises(DataError, match=r"no column 'wage'\. Did you mean 'age'"):
        import_data("other", replace(source, features=("wage",)), tmp_path)


def test_all_other_columns_are_features_but_one_called_split(tmp_path: Path) -> None:
    source = replace(people(tmp_path), split=None)
    done = import_data("people", source, tmp_path)
    assert any("Column 'split' is not used" in note for note in done.notes)
    kept = json.loads((done.folder / "task.json").read_text())["more"]["features"]
    assert [feature["column"] for feature in kept] == ["age", "job", "zone"]


def test_a_constant_column_is_0_and_large_numbers_stay_finite(tmp_path: Path) -> None:
    made = [
        (f"{10.0 ** (300 + i % 3)}", job, "7", *rest) for i, (_, job, _, *rest) in enumerate(rows())
    ]
    source = replace(people(tmp_path, made), features=("age", "zone"))
    x = import_data("people", source, tmp_path).task.train.x
    assert isinstance(x, torch.Tensor)
    assert float(x[:, 1].abs().max()) == 0
    assert math.isclose(float(x[:, 0].std(correction=0)), 1, rel_tol=1e-5)


def test_a_column_of_names_is_an_error_that_says_to_leave_it_out(tmp_path: Path) -> None:
    made = [(age, f"person {i}", *rest) for i, (age, _, *rest) in enumerate(rows(4000))]
    with pytest.raises(DataError, match="Column 'job' has 2,000 different values in training"):
        import_data("people", people(tmp_path, made), tmp_path)


def test_the_command_imports_a_table_that_an_mlp_learns(
    tmp_path: Path, debiasbench: Callable[..., Result]
) -> None:
    people(tmp_path)
    words = ("--table", "people.csv", "--label", "paid", "--bias", "sex", "--split", "split")
    result = debiasbench("data", "import", "people", *words, "--features")
    assert result.exit_code == 0, result.output
    assert "people: 120 rows of 5 features, 2 classes, 2 bias values" in result.output
    assert "run --dataset people --method erm --model mlp" in result.output
    shown = debiasbench("show", "people")
    assert "Features: age, job (3 values), zone" in shown.output
    assert "Recommended model: mlp" in shown.output
    assert "No contact sheet" in debiasbench("data", "show", "people").output
    some = debiasbench(
        "data", "import", "some", *words, "--features", "age,zone", "--categorical", "zone"
    )
    assert "some: 120 rows of 4 features" in some.output
    run = debiasbench(
        "run", "--dataset", "some", "--method", "erm", "--model", "mlp", "--epochs", "2"
    )
    assert run.exit_code == 0, run.output
