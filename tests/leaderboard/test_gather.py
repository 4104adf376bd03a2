"""Many records: tables need only a part of each, and equal parts are one object."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from debiasbench.common.errors import RecordError
from debiasbench.leaderboard import boards, distinct, render
from debiasbench.leaderboard.gather import gather
from debiasbench.leaderboard.notes import listed
from debiasbench.records.reading import read_all
from debiasbench.records.record import Record, to_json
from debiasbench.records.sharing import Sharing
from debiasbench.specs.spec import Choice
from tests.leaderboard.test_leaderboard import ERM, LFF, REST, particular, run


def put(folder: Path, records: list[Record]) -> None:
    for record in records:
        (folder / f"{record.spec.stem}.json").write_text(to_json(record))


@pytest.mark.parametrize("select", [None, "last", "val_average"])
def test_tables_of_gathered_records_are_those_of_the_whole_records(
    tmp_path: Path, select: str | None
) -> None:
    put(tmp_path, [*ERM, *LFF, *REST, run("lff", 9, failed=True)])
    whole, _ = distinct([record for _, record in read_all([tmp_path])[0]])
    gathered = gather([tmp_path], select)
    assert [record.id for record in gathered.records] == [record.id for record in whole]
    for form in ("json", "markdown"):
        expected = render(boards(whole, select=select, unverified=gathered.unverified), form)
        assert (
            render(boards(gathered.records, select=select, unverified=gathered.unverified), form)
            == expected
        )


def test_equal_parts_of_gathered_records_are_one_object(tmp_path: Path) -> None:
    put(tmp_path, ERM)
    first, *others = gather([tmp_path]).records
    for record in others:
        assert record.task is first.task
        assert record.spec.training is first.spec.training
        assert record.spec.dataset is first.spec.dataset
        assert record.provenance is first.provenance
        assert record.spec.seed != first.spec.seed


@pytest.mark.parametrize("values", [(1, True), (1, 1.0), (0, False)])
def test_equal_numbers_of_different_types_stay_different(values: tuple[Any, Any]) -> None:
    sharing = Sharing()
    specs = [replace(ERM[0].spec, method=Choice("erm", {"x": value})) for value in values]
    shared = [
        sharing.for_tables(replace(ERM[0], spec=spec, id=spec.id), "last").spec for spec in specs
    ]
    assert [type(spec.method.options["x"]) for spec in shared] == [type(v) for v in values]
    assert [spec.id for spec in shared] == [spec.id for spec in specs]


def test_a_folder_without_any_record_names_a_few_of_its_bad_files(tmp_path: Path) -> None:
    for i in range(100):
        (tmp_path / f"{i:03}.json").write_text("{}")
    with pytest.raises(RecordError, match=r"000\.json .*004\.json .* and 95 more\)") as error:
        gather([tmp_path])
    assert "005.json" not in str(error.value)


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ([], ""),
        ([4], "4"),
        ([2, 1], "1, 2"),
        ([3, 1, 2], "1-3"),
        ([-1, 0, 1, 5, 7, 8, *range(100, 10_000)], "-1-1, 5, 7, 8, 100-9999"),
    ],
)
def test_seeds_in_a_row_are_a_range(seeds: list[int], text: str) -> None:
    assert listed(seeds) == text


def test_ten_thousand_failed_and_missing_seeds_take_a_note_each() -> None:
    failed = [run("lff", seed, failed=True) for seed in range(5000)]
    (board,) = boards([*failed, run("lff", 20_000), run("erm", 30_000)])
    assert particular(board.notes)[:5] == [
        "erm: no record for seeds 0-4999, 20000.",
        "lff: no record for seed 30000.",
        "lff: seeds 0-4999 do not count: NonFiniteLoss at step 12.",
        "Failed runs, so no rank and no mark: lff.",
        "One seed each, so there is no interval and no comparison: erm, lff.",
    ]
