"""Published values are read strictly, and belong to runs of their suite."""

from __future__ import annotations

import math
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from debiasbench.common.errors import OptionError, UnknownNameError
from debiasbench.leaderboard.published import names, read
from debiasbench.specs import suites
from debiasbench.specs.plugins import Plugins

TEXT = """
suite = "s"
metric = "unbiased"
select = "last"
[sources.paper]
citation = "A paper"
place = "Table 1"
seeds = 3
[[values]]
source = "paper"
method = "erm"
"dataset.ratio" = [0.1, 0.2]
accuracy = [50.5, 60]
deviation = [1, 2.5]
[[values]]
source = "paper"
method = "lff"
accuracy = 70
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "values.toml"
    file.write_text(text)
    return file


def test_a_row_of_lists_is_a_value_for_each_setting(tmp_path: Path) -> None:
    found = read(write(tmp_path, TEXT))
    assert (found.suite, found.metric, found.select) == ("s", "unbiased", "last")
    assert [(v.title, v.accuracy, v.source.seeds) for v in found.values] == [
        ("erm dataset.ratio=0.1", 0.505, 3),
        ("erm dataset.ratio=0.2", 0.6, 3),
        ("lff", 0.7, 3),
    ]
    assert [v.deviation for v in found.values[:2]] == [0.01, 0.025]
    assert math.isnan(found.values[2].deviation)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"unbiased"', '"best"', "metric = 'best': must be one of average"),
        ("accuracy = 70", "accuracy = 170", "numbers from 0 to 100"),
        ("[50.5, 60]", "[50.5]", "must have 2 numbers from 0 to 100, one for each value of"),
        ("[1, 2.5]", "[1]", "must have 2 numbers"),
        ('source = "paper"\nmethod = "lff"', 'source = "papr"\nmethod = "lff"', "Did you mean"),
        ('method = "lff"', 'epochs = "lff"', "a row has no method"),
        ("seeds = 3", "seeds = 0", "must be a number above 0"),
        ("seeds = 3", "sedes = 3", "sources.paper has no key 'sedes'. Did you mean 'seeds'?"),
        ('place = "Table 1"', "", "place is missing"),
        ('suite = "s"', "suite = 7", "must be a name"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_line(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    assert old in TEXT
    with pytest.raises(OptionError) as error:
        read(write(tmp_path, TEXT.replace(old, new)))
    assert str(error.value).startswith(str(tmp_path / "values.toml"))
    assert reason in str(error.value)


def test_a_suite_without_published_values_is_named_with_those_that_have_them() -> None:
    with pytest.raises(UnknownNameError, match=r"cmnist-mlp.*give a file with --values"):
        read("rest-cmnist")


@pytest.mark.parametrize("name", names())
def test_every_published_value_belongs_to_three_runs_of_its_suite(name: str) -> None:
    published = read(name)
    assert published.suite == name
    specs = suites.read(name).specs(Plugins(installed=False))
    assert [sum(map(value.describes, specs)) for value in published.values] == [3] * len(
        published.values
    )


def numbers(value: Any) -> list[float]:
    return value if isinstance(value, list) else [value]


def test_published_numbers_are_given_with_a_source_once() -> None:
    for name in names():
        text = files("debiasbench").joinpath("suites", "published", f"{name}.toml").read_text()
        rows = tomllib.loads(text)["values"]
        cells = [
            (row["source"], row["method"], ratio)
            for row in rows
            for ratio in numbers(row.get("dataset.ratio", 0))
        ]
        assert len(set(cells)) == len(cells) == len(read(name).values)
