"""CivilComments is read from the table of WILDS, with any identity or one of eight as the bias."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from debiasbench.common.errors import DataError, OptionError
from debiasbench.common.options import parse
from debiasbench.core.texts import Texts
from debiasbench.datasets.civilcomments import CivilComments
from debiasbench.testing import check_dataset
from tests.datasets.corpora import IDENTITIES, civilcomments, comment_rows


@pytest.mark.parametrize("bias", ["identity_any", *IDENTITIES])
def test_groups_and_comments_are_those_of_the_table(tmp_path: Path, bias: str) -> None:
    rows = comment_rows()
    civilcomments(tmp_path, rows)
    dataset = parse(CivilComments, {"bias": bias}, owner="data set")
    task = check_dataset(dataset, tmp_path)
    assert task.classes == ("non_toxic", "toxic")
    assert task.biases == (f"{bias}=0", f"{bias}=1")
    expected = Counter(
        (row["split"], float(row["toxicity"]) >= 0.5, float(row[bias]) >= 0.5) for row in rows
    )
    for name, split in task.splits().items():
        assert isinstance(split.x, Texts)
        assert list(split.x) == [(row["comment_text"],) for row in rows if row["split"] == name]
        found = Counter(zip(split.y.tolist(), split.bias.tolist(), strict=True))
        for y in (0, 1):
            for b in (0, 1):
                assert found[y, b] == expected[name, bool(y), bool(b)]


def test_toxic_comments_go_with_the_mention_of_an_identity(tmp_path: Path) -> None:
    civilcomments(tmp_path)
    task = CivilComments().load(tmp_path)
    assert task.aligned.tolist() == [[True, False], [False, True]]
    assert (task.metric, task.select) == ("worst_group", "val_worst_group")


def test_an_unknown_identity_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"identity_any.*LGBTQ"):
        parse(CivilComments, {"bias": "jewish"}, owner="data set civilcomments")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"civilcomments/all_data_with_identities.csv is missing"):
        CivilComments().load(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("comment_text", " ", "line 7: comment_text is an empty text"),
        ("toxicity", "often", "line 7: toxicity is 'often', must be a number from 0 to 1"),
        ("toxicity", "", "line 7: toxicity is ''"),
        ("toxicity", "1.5", "line 7: toxicity is '1.5'"),
        ("identity_any", "nan", "line 7: identity_any is 'nan'"),
        ("split", "dev", "line 7: split is 'dev', must be train or val or test"),
    ],
)
def test_a_bad_cell_is_an_error_with_its_line(
    tmp_path: Path, column: str, value: str, message: str
) -> None:
    rows = comment_rows()
    rows[2][column] = value  # every row has two lines; the third ends in line 7
    if column == "comment_text":
        message = message.replace("7", "6")
    civilcomments(tmp_path, rows)
    with pytest.raises(DataError, match=message):
        CivilComments().load(tmp_path)


def test_a_table_without_identities_is_an_error(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "identity_any"} for row in comment_rows()]
    civilcomments(tmp_path, rows)
    with pytest.raises(DataError, match="has no column 'identity_any'"):
        CivilComments().load(tmp_path)
