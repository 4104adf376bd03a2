"""Waterbirds are read from the table and the images of the authors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from debiasbench.common.errors import DataError
from debiasbench.datasets.waterbirds import Waterbirds
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.testing import check_dataset
from tests.datasets.folders import (
    BIRDS,
    HEADER,
    bird,
    empty,
    table,
    values,
    waterbirds,
)


@pytest.mark.parametrize("name", ["waterbirds", "waterbird_complete95_forest2water2"])
def test_splits_and_groups_come_from_the_table(tmp_path: Path, name: str) -> None:
    task = check_dataset(Waterbirds(size=14), waterbirds(tmp_path, name=name))
    assert task.shape.input == (3, 14, 14)
    assert [values(s) for s in task.splits().values()] == [[10, 20, 40], [30], [0, 50]]
    assert task.train.y.tolist() == [0, 1, 0]
    assert task.train.bias.tolist() == [0, 1, 1]
    assert task.conflict(task.train).tolist() == [False, False, True]
    assert task.group_counts(task.test).tolist() == [0, 1, 0, 1]
    assert (task.metric, task.select) == ("worst_group", "val_worst_group")


def test_a_folder_without_the_table_hides_no_complete_one_and_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "waterbirds").mkdir()
    (source,) = Waterbirds(size=14).sources(tmp_path)
    assert not source.exists()
    root = waterbirds(tmp_path, name="waterbird_complete95_forest2water2")
    assert len(Waterbirds(size=14).load(root).train) == 3


def test_birds_are_stretched_and_cropped_as_in_group_dro(tmp_path: Path) -> None:
    root = waterbirds(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "waterbirds" / bird(1))
    expected = Compose([Resize((256, 256)), CenterCrop((224, 224))])(Image.fromarray(pixels))
    actual = Waterbirds().load(root).train.x[0].permute(1, 2, 0).numpy()
    assert np.array_equal(actual, np.asarray(expected))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\N{BYTE ORDER MARK}" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace(",", " , "),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace(HEADER, HEADER + ",more").replace(".jpg", ".jpg,1"),
    ],
    ids=["byte order mark", "CRLF", "empty lines", "spaces", "no last line end", "more columns"],
)
def test_other_forms_of_the_same_table_are_read_alike(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    usual = Waterbirds(size=14).load(waterbirds(tmp_path / "usual"))
    other = Waterbirds(size=14).load(waterbirds(tmp_path / "other", change(table())))
    assert other.fingerprint() == usual.fingerprint()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("split", "part", r"no column 'split'; its columns are img_id, img_filename, y, part, pla"),
        ("place_filename", "y", r"more than one column 'y'"),
        ("3,000.Bird/b_2.png,1", "3,000.Bird/b_2.png,2", r"line 4: y is '2', must be 0 or 1"),
        ("3,000.Bird/b_2.png,1", "3,000.Bird/b_2.png,", r"line 4: y is '', must be 0 or 1"),
        ("b_2.png,1,0,1", "b_2.png,1,3,1", r"line 4: split is '3', must be 0 or 1 or 2"),
        ("b_2.png,1,0,1", "b_2.png,1,0,1.0", r"line 4: place is '1.0', must be 0 or 1"),
        ("3,000", "1,000", r"line 4: img_id '1' is already in line 2"),
        ("b_2.png", "b_0.png", r"line 4: img_filename '000.Bird/b_0.png' is already in line 2"),
        ("000.Bird/b_2.png", "../b_2.png", r"line 4: the path '../b_2.png' .*outside"),
        ("000.Bird/b_2.png", "a/../../b.png", r"line 4: the path .*outside"),
        ("000.Bird/b_2.png", "..\\b.png", r"line 4: the path .*outside"),
        ("000.Bird/b_2.png", "/etc/b.png", r"line 4: the path '/etc/b.png' .*outside"),
        ("000.Bird/b_2.png", "", r"line 4: the path '' is empty"),
        (",/l/2.jpg", "", r"line 4: 5 cells, but the header has 6"),
        ("b_2.png", "b_9.png", r"000\.Bird/b_9\.png is missing; 1 of 6 images"),
        (HEADER, "", r"no column 'img_id'; its columns are 1, 001"),
    ],
)
def test_a_wrong_table_is_one_error_with_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = table().replace("000.Bird/b_0.png", "001.Bird/b_0.png") if old == HEADER else table()
    assert old in text
    root = waterbirds(tmp_path, text.replace(old, new, 1))
    with pytest.raises(DataError, match=message) as error:
        Waterbirds(size=14).load(root)
    assert str(root / "waterbirds") in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'img_id,"'])
def test_a_file_that_is_not_a_table_is_an_error(tmp_path: Path, content: bytes) -> None:
    (waterbirds(tmp_path) / "waterbirds/metadata.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"metadata\.csv.*Download the original file again"):
        Waterbirds(size=14).load(tmp_path)


def test_a_split_without_samples_is_named(tmp_path: Path) -> None:
    root = waterbirds(tmp_path, table([(y, 0 if s == 1 else s, p) for y, s, p in BIRDS]))
    with pytest.raises(DataError, match=r"metadata\.csv has no val sample"):
        Waterbirds(size=14).load(root)


def test_missing_images_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    root = waterbirds(tmp_path)
    empty(root / "waterbirds/000.Bird")
    (root / "waterbirds/000.Bird").rmdir()
    # training comes first: images 1, 2 and 4; 2 and 4 were in this folder
    with pytest.raises(
        DataError, match=r"000\.Bird/b_2\.png is missing; 3 of 6 images are missing in total"
    ):
        Waterbirds(size=14).load(root)


@pytest.mark.parametrize("name", ["waterbirds", "celeba"])
def test_without_augment_training_images_stay_as_they_are_and_older_ids_hold(name: str) -> None:
    plugins = Plugins([])
    cls = plugins.datasets.find(name)[0].load()
    assert cls().augmentation() is not None
    assert cls(augment=False).augmentation() is None
    usual = make_spec(plugins, method="erm", dataset=name)
    plain = make_spec(plugins, method="erm", dataset=name, dataset_options={"augment": False})
    assert "augment" not in usual.dataset.options  # as in specs from before the option
    assert plain.dataset.options["augment"] is False
    assert plain.id != usual.id
