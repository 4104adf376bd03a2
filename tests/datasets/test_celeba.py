"""CelebA is read from the files of the authors or of Kaggle."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from debiasbench.common.errors import DataError, OptionError
from debiasbench.common.options import parse
from debiasbench.core.data import Split
from debiasbench.datasets._samples import SPLITS
from debiasbench.datasets._together import together
from debiasbench.datasets.celeba import CelebA, read_attributes, read_partition
from debiasbench.testing import check_dataset
from tests.datasets.folders import (
    celeba,
    face,
    kaggle,
    picture,
    values,
)


def test_splits_and_groups_come_from_the_files(tmp_path: Path) -> None:
    task = check_dataset(CelebA(size=16), celeba(tmp_path))
    assert task.shape.input == (3, 16, 16)
    train, val, test = (values(split) for split in task.splits().values())
    assert (train, val, test) == ([0, 10, 20, 30, 40, 50, 60], [70, 80], [90, 100])
    assert (task.classes, task.biases) == (("Blond_Hair=0", "Blond_Hair=1"), ("Male=0", "Male=1"))
    assert task.train.y.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert task.train.bias.tolist() == [1, 1, 1, 0, 0, 0, 1]
    assert task.aligned.tolist() == [[False, True], [True, False]]
    assert (task.metric, task.select) == ("worst_group", "val_worst_group")


def test_the_files_of_kaggle_give_the_same_task(tmp_path: Path) -> None:
    usual = CelebA(size=16).load(celeba(tmp_path / "usual"))
    assert CelebA(size=16).load(kaggle(tmp_path / "kaggle")).fingerprint() == usual.fingerprint()


def test_the_format_of_a_table_is_that_of_its_content_whatever_its_name(tmp_path: Path) -> None:
    usual = CelebA(size=16).load(celeba(tmp_path / "usual"))
    root = kaggle(tmp_path / "kaggle")
    for file in (root / "celeba").glob("*.csv"):
        file.rename(file.with_suffix(".txt"))
    assert CelebA(size=16).load(root).fingerprint() == usual.fingerprint()


@pytest.mark.parametrize(
    "text",
    ["11\n000000.png -1 1 -1\n", "image_id;Blond_Hair;Male\n000000.png;-1;1\n", "11\n", ""],
)
def test_a_table_without_names_of_attributes_is_an_error_about_the_table(
    text: str, tmp_path: Path
) -> None:
    root = celeba(tmp_path)
    (root / "celeba" / "list_attr_celeba.txt").write_text(text)
    with pytest.raises(DataError, match="does not begin with the names of the attributes"):
        CelebA(size=16).load(root)


@pytest.mark.parametrize("separator", ["+", ",", " + "])
def test_several_attributes_are_combined_to_one_bias(tmp_path: Path, separator: str) -> None:
    dataset = CelebA(bias=f"Male{separator}Young", size=16)
    task = dataset.load(celeba(tmp_path))
    assert task.biases == ("Male=0,Young=0", "Male=0,Young=1", "Male=1,Young=0", "Male=1,Young=1")
    # male, young of training: 11, 10, 11, 00, 01, 00, 11
    assert task.train.bias.tolist() == [3, 2, 3, 0, 1, 0, 3]


def test_any_attribute_can_be_the_class(tmp_path: Path) -> None:
    task = CelebA(target="Young", bias="Blond_Hair", size=16).load(celeba(tmp_path))
    assert task.classes == ("Young=0", "Young=1")
    assert task.train.y.tolist() == [1, 0, 1, 0, 1, 0, 1]


def test_faces_are_cropped_and_scaled_as_in_group_dro(tmp_path: Path) -> None:
    root = celeba(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "celeba/img_align_celeba" / face(0))
    expected = Compose([CenterCrop(178), Resize((224, 224))])(Image.fromarray(pixels))
    actual = CelebA().load(root).train.x[0].permute(1, 2, 0).numpy()
    assert np.array_equal(actual, np.asarray(expected))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # Blond_Hair and Male in training, by class: women, men
        ([[71629, 66874], [22880, 1387]], [[False, True], [True, False]]),
        ([[3498, 184], [56, 1057]], [[True, False], [False, True]]),
        ([[10, 10], [30, 30]], [[False, False], [False, False]]),
        ([[0, 10], [0, 30]], [[False, False], [False, False]]),
        ([[9, 1, 5], [1, 9, 5], [1, 1, 5]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    ],
)
def test_aligned_groups_are_more_frequent_than_by_chance(
    counts: list[list[int]], expected: list[list[int]]
) -> None:
    table = torch.tensor(counts)
    y, bias = (
        torch.cat([torch.full((n,), v) for v, n in zip(index, table.flatten(), strict=True)])
        for index in torch.cartesian_prod(*(torch.arange(n) for n in table.shape)).T.tolist()
    )
    split = Split(torch.zeros(len(y), 1), y, bias, num_biases=table.shape[1])
    aligned = together(split, num_classes=len(counts))
    assert aligned.tolist() == torch.tensor(expected).bool().tolist()
    share = table / table.sum(0)  # P(class | bias), by division instead of multiplication
    assert torch.equal(aligned, share > table.sum(1, keepdim=True) / table.sum())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": "Blond_Hair"}, "must be different attributes"),
        ({"bias": "Male+Male"}, "must be different attributes"),
        ({"bias": "Male+"}, "must be different attributes"),
        ({"target": ""}, "must be different attributes"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        parse(CelebA, options, owner="data set celeba")


def test_an_unknown_attribute_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"'Mail'\. Did you mean 'Male'\?.*has: Attractive, "):
        CelebA(bias="Mail").load(celeba(tmp_path))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "list_attr_celeba",
            "000003.png -1 -1",
            "000003.png -1  2",
            r"celeba\.txt, line 5: Blond_Hair is '2', must be -1 or 0 or 1",
        ),
        (
            "list_attr_celeba",
            "000003.png -1",
            "000003.png",
            r"celeba\.txt, line 5: 4 cells, but the header has 5",
        ),
        (
            "list_attr_celeba",
            "000003.png",
            "000002.png",
            r"line 5: image_id '000002\.png' is already in line 4",
        ),
        (
            "list_attr_celeba",
            "000003.png",
            "000099.png",
            r"list_attr_celeba\.txt lacks 000003\.png, .*; 1 of 11 images",
        ),
        (
            "list_eval_partition",
            "000003.png 0\n",
            "",
            r"list_eval_partition\.txt lacks 000003\.png, .*; 1 of 11 images",
        ),
        (
            "list_eval_partition",
            "000003.png 0",
            "000003.png 3",
            r"partition\.txt, line 3: partition is '3', must be 0 or 1 or 2",
        ),
        (
            "list_eval_partition",
            "000003.png 0",
            "000003.png",
            r"partition\.txt, line 3: 1 cells, but the header has 2",
        ),
        (
            "list_eval_partition",
            "000003.png",
            "000002.png",
            r"line 3: image_id '000002\.png' is already in line 2",
        ),
    ],
)
def test_wrong_files_are_refused(
    tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    path = celeba(tmp_path) / "celeba" / f"{file}.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        CelebA(size=16).load(tmp_path)


def test_a_face_outside_its_folder_is_refused(tmp_path: Path) -> None:
    folder = celeba(tmp_path) / "celeba"
    for path in folder.glob("*.txt"):
        path.write_text(path.read_text().replace("000003.png", "../000003.png"))
    with pytest.raises(DataError, match=r"'\.\./000003\.png' .*outside"):
        CelebA(size=16).load(tmp_path)


def test_a_face_that_is_missing_or_too_small_is_named(tmp_path: Path) -> None:
    images = celeba(tmp_path) / "celeba/img_align_celeba"
    picture(images / face(4), size=(64, 64))
    with pytest.raises(DataError, match=r"000005\.png is 64x64 .*smaller than the crop of 178x178"):
        CelebA(size=16).load(tmp_path)
    (images / face(4)).unlink()
    with pytest.raises(DataError, match=r"000005\.png is missing; 1 of 11 images"):
        CelebA(size=16).load(tmp_path)


REAL = Path(os.environ.get("DEBIASBENCH_TEST_DATA", "data")) / "celeba"
real_celeba = pytest.mark.skipif(
    not (REAL / "list_eval_partition.txt").is_file(),
    reason="no real CelebA: put celeba/ into the folder DEBIASBENCH_TEST_DATA names",
)


@real_celeba
def test_the_real_partition_has_the_published_sizes() -> None:
    splits = list(read_partition(REAL / "list_eval_partition.txt").values())
    assert [splits.count(i) for i in range(len(SPLITS))] == [162_770, 19_867, 19_962]


@real_celeba
def test_the_real_attributes_have_few_blond_men() -> None:
    first = REAL / "list_attr_celeba_first20000.txt"
    if not first.is_file():
        pytest.skip(f"no {first.name} in {REAL}")
    labels = list(read_attributes(first, ("Blond_Hair", "Male")).values())
    counts = [labels.count(group) for group in ((0, 0), (0, 1), (1, 0), (1, 1))]
    lines = [line.split() for line in first.read_text().splitlines()[2:]]
    expected = [
        sum(line[10] == blond and line[21] == male for line in lines)
        for blond in ("-1", "1")
        for male in ("-1", "1")
    ]
    assert counts == expected == [8778, 8245, 2791, 186]
