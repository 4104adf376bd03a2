"""MultiNLI is read from its official files and split as group DRO's file says, or by a seed."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from debiasbench.common.errors import DataError
from debiasbench.core.data import Task
from debiasbench.core.texts import Texts
from debiasbench.datasets.multinli import MultiNLI, has_negation
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import find_dataset
from debiasbench.testing import check_dataset
from tests.datasets.corpora import (
    LABELS,
    NEGATED,
    SECONDS,
    multinli,
    nli_row,
    nli_rows,
    released_split,
)

TRAIN, MATCHED, MISMATCHED = (
    f"multinli_1.0_{part}.jsonl" for part in ("train", "dev_matched", "dev_mismatched")
)


def counts(task: Task) -> dict[tuple[str, str, str], int]:
    """Samples by split, class and bias value."""
    return {
        (name, task.classes[group // 2], task.biases[group % 2]): number
        for name, split in task.splits().items()
        for group, number in enumerate(task.group_counts(split).tolist())
    }


def test_groups_and_pairs_are_those_of_the_released_split(tmp_path: Path) -> None:
    rows = nli_rows()
    table = released_split(multinli(tmp_path, rows), rows)
    task = check_dataset(MultiNLI(), tmp_path)
    expected = Counter(
        (("train", "val", "test")[split], LABELS[label], ("no negation", "negation")[negated])
        for _, label, negated, split in table
    )
    assert counts(task) == expected
    for number, split in enumerate(task.splits().values()):
        assert isinstance(split.x, Texts)
        own = [rows[index] for index, _, _, s in table if s == number]
        assert list(split.x) == [(row["sentence1"], row["sentence2"]) for row in own]
        assert split.y.tolist() == [LABELS.index(str(row["gold_label"])) for row in own]
    assert (task.metric, task.select) == ("worst_group", "val_worst_group")


def test_contradiction_goes_with_negation(tmp_path: Path) -> None:
    multinli(tmp_path)
    task = MultiNLI(split="seeded").load(tmp_path)
    assert task.classes == ("contradiction", "entailment", "neutral")
    assert task.biases == ("no negation", "negation")
    assert task.aligned.tolist() == [[False, True], [True, False], [True, False]]


def test_a_seeded_split_has_the_proportions_of_group_dro_among_all_pairs(tmp_path: Path) -> None:
    rows = nli_rows(1000)
    multinli(tmp_path, rows)
    task = check_dataset(MultiNLI(split="seeded"), tmp_path)
    labelled = [row for row in rows if row["gold_label"] != "-"]
    expected = Counter(
        (str(row["gold_label"]), NEGATED[SECONDS.index(str(row["sentence2"]))]) for row in labelled
    )
    found: Counter[tuple[str, bool]] = Counter()
    texts = []
    for split in task.splits().values():
        assert isinstance(split.x, Texts)
        texts += list(split.x)
        for y, bias in zip(split.y.tolist(), split.bias.tolist(), strict=True):
            found[LABELS[y], bool(bias)] += 1
    assert found == expected
    assert sorted(texts) == sorted((r["sentence1"], r["sentence2"]) for r in labelled)
    sizes = [len(split) for split in task.splits().values()]
    assert sum(sizes) == len(labelled)
    # 500, 200 and 300 of all pairs, of which 34 or 35 have no label
    assert all(n - 35 < size <= n for size, n in zip(sizes, (500, 200, 300), strict=True))
    other = MultiNLI(split="seeded", split_seed=1).load(tmp_path)
    assert other.fingerprint() != task.fingerprint()


@pytest.mark.parametrize(("sentence", "expected"), list(zip(SECONDS, NEGATED, strict=True)))
def test_negation_words_are_found_as_group_dro_finds_them(sentence: str, expected: bool) -> None:
    assert has_negation(sentence) == expected


def test_the_spec_says_which_split_it_is(tmp_path: Path) -> None:
    plugins, rows = Plugins([]), nli_rows()
    folder = multinli(tmp_path, rows)
    assert find_dataset(plugins, "multinli", tmp_path) == ("multinli", {"split": "seeded"})
    released_split(folder, rows)
    assert find_dataset(plugins, "multinli", tmp_path) == ("multinli", {})


def test_missing_files_are_named_with_the_way_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"multinli_1.0_train.jsonl is missing.*data prepare multi"):
        MultiNLI(split="seeded").load(tmp_path)
    folder = multinli(tmp_path)
    with pytest.raises(DataError, match=r"metadata_random.csv is missing.*dataset.split=seeded"):
        MultiNLI().load(tmp_path)
    (folder / MISMATCHED).unlink()
    with pytest.raises(DataError, match=r"multinli_1.0_dev_mismatched.jsonl is missing"):
        MultiNLI(split="seeded").load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"pairID"', '"pairID', "train.jsonl, line 3 is not JSON"),
        ('{"annotator', '["annotator', "train.jsonl, line 3 is not JSON"),
        ('"gold_label": "', '"gold_label": "x', "line 3: gold_label is 'x.*, must be contradic"),
        ('"gold_label"', '"label"', "line 3 has no text 'gold_label'"),
        ('"sentence2": "', '"sentence2": 5, "old": "', "line 3 has no text 'sentence2'"),
        ('"sentence1": "', '"sentence1": " ", "old": "', "line 3: sentence1 is an empty text"),
        ("quoted", "quot\udcffed", "line 3 is not JSON"),
    ],
)
def test_a_bad_line_is_an_error_with_its_number(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = multinli(tmp_path) / TRAIN
    lines = path.read_text("utf-8").splitlines(keepends=True)
    assert old in lines[2]
    lines[2] = lines[2].replace(old, new, 1)
    path.write_bytes("".join(lines).encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message):
        MultiNLI(split="seeded").load(tmp_path)


def test_a_line_that_is_no_object_is_an_error(tmp_path: Path) -> None:
    path = multinli(tmp_path) / MATCHED
    path.write_text("5\n", "utf-8")
    with pytest.raises(DataError, match=r"dev_matched.jsonl, line 1 is not a JSON object"):
        MultiNLI(split="seeded").load(tmp_path)


def changed(table: Path, line: int, old: str, new: str) -> None:
    lines = table.read_text().splitlines(keepends=True)
    assert re.search(old, lines[line - 1])
    lines[line - 1] = re.sub(old, new, lines[line - 1], count=1)
    table.write_text("".join(lines))


@pytest.mark.parametrize(
    ("line", "old", "new", "message"),
    [
        (1, "split", "part", "has no column 'split'"),
        (4, r",[012],", ",7,", "line 4: gold_label is '7', must be 0 or 1 or 2"),
        (4, r".$", "9", "line 4: split is '9'"),
    ],
)
def test_a_damaged_split_is_an_error(
    tmp_path: Path, line: int, old: str, new: str, message: str
) -> None:
    rows = nli_rows()
    folder = multinli(tmp_path, rows)
    released_split(folder, rows)
    changed(folder / "metadata_random.csv", line, old, new)
    with pytest.raises(DataError, match=message):
        MultiNLI().load(tmp_path)


def test_a_split_of_other_pairs_is_an_error(tmp_path: Path) -> None:
    rows = nli_rows()
    folder = multinli(tmp_path, rows)
    released_split(folder, rows[:-1])
    with pytest.raises(DataError, match=r"has no row for .*dev_mismatched.jsonl, line 40"):
        MultiNLI().load(tmp_path)
    released_split(folder, [*rows, nli_row(400, "neutral", SECONDS[0])])
    with pytest.raises(DataError, match="there are no more pairs"):
        MultiNLI().load(tmp_path)
    released_split(folder, rows[::-1])
    with pytest.raises(DataError, match=r"label .*, but .*train.jsonl, line .* has another"):
        MultiNLI().load(tmp_path)
