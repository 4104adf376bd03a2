"""Data sets that lie in folders as others released them: BFFHQ, Waterbirds, CelebA, and layouts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from debiasbench.common.errors import DataError, OptionError
from debiasbench.common.options import parse
from debiasbench.core.data import Split, Task
from debiasbench.datasets._released import released, released_sources, token
from debiasbench.datasets._samples import SPLITS
from debiasbench.datasets.bffhq import BFFHQ
from debiasbench.datasets.celeba import CelebA, read_attributes, read_partition, together
from debiasbench.datasets.waterbirds import Waterbirds
from debiasbench.testing import check_dataset


def picture(path: Path, value: int = 0, size: tuple[int, int] = (8, 8)) -> Path:
    """A grey image of one value, so that it is known again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


RELEASED = [
    # part, class folder, label, bias
    ("1pct/align", "0", 0, 0), ("1pct/align", "0", 0, 0), ("1pct/align", "1", 1, 1),
    ("1pct/conflict", "0", 0, 1), ("1pct/conflict", "1", 1, 0),
    ("1pct/valid", "", 0, 0), ("1pct/valid", "", 1, 0),
    ("test", "0", 0, 1), ("test", "1", 1, 1), ("test", "1", 1, 0),
]  # fmt: skip


def release(folder: Path, *, rename: Callable[[str], str] = str) -> Path:
    """Write the released layout: image i is of value 10 i; `rename` changes each path."""
    for i, (part, inner, label, bias) in enumerate(RELEASED):
        name = rename(str(Path(part, inner, f"{i}_{label}_{bias}.png")))
        picture(folder / name, 10 * i)
    return folder


def two(folder: Path, *, ratio: float = 0.01, shared_valid: bool = False) -> Task:
    return released(folder, ratio, classes=("a", "b"), biases=("c", "d"), shared_valid=shared_valid)


def values(split: Split) -> list[int]:
    """The grey values of a split's images."""
    return split.x[:, 0, 0, 0].tolist()


def test_a_released_folder_is_read_with_the_labels_of_its_names(tmp_path: Path) -> None:
    task = two(release(tmp_path))
    assert [values(s) for s in task.splits().values()] == [
        [0, 10, 20, 30, 40], [50, 60], [70, 80, 90],
    ]  # fmt: skip
    assert task.train.y.tolist() == [0, 0, 1, 0, 1]
    assert task.train.bias.tolist() == [0, 0, 1, 1, 0]
    assert task.conflict(task.train).tolist() == [False, False, False, True, True]
    assert (task.metric, task.select) == ("unbiased", "val_unbiased")
    assert (task.classes, task.biases) == (("a", "b"), ("c", "d"))


@pytest.mark.parametrize(
    ("rename", "shared_valid"),
    [
        (lambda name: name.replace("conflict", "conlict"), False),
        (lambda name: name.replace("valid/", "valid/0/"), False),
        (lambda name: name.replace("1pct/valid", "valid"), True),
        (lambda name: name.replace("1pct/valid", "valid/x"), True),
        (lambda name: name.replace("test/1", "test").replace("test/0", "test"), False),
        (lambda name: name.replace(".png", ".PNG"), False),
    ],
    ids=["misspelt", "deep valid", "shared valid", "deep shared valid", "flat test", "capitals"],
)
def test_the_variants_of_the_layout_give_the_same_task(
    tmp_path: Path, rename: Callable[[str], str], shared_valid: bool
) -> None:
    usual = two(release(tmp_path / "usual"))
    other = two(release(tmp_path / "other", rename=rename), shared_valid=shared_valid)
    assert other.fingerprint() == usual.fingerprint()


def test_what_file_managers_leave_is_not_looked_at(tmp_path: Path) -> None:
    before = two(release(tmp_path)).fingerprint()
    for litter in ("1pct/align/.DS_Store", "1pct/valid/._5_0_0.png", "test/1/Thumbs.db"):
        (tmp_path / litter).write_bytes(b"\0")
    (tmp_path / "test" / ".cache").mkdir()
    assert two(tmp_path).fingerprint() == before


@pytest.mark.parametrize(
    ("ratio", "name"),
    [(0.005, "0.5pct"), (0.01, "1pct"), (0.02, "2pct"), (0.05, "5pct"), (0.07, "7pct"),
     (0.015, "1.5pct"), (0.2, "20pct")],
)  # fmt: skip
def test_the_ratio_names_the_folder(ratio: float, name: str) -> None:
    assert token(ratio) == name
    assert released_sources(Path("x"), ratio) == [Path("x", name), Path("x/test")]
    assert Path("x/valid") in released_sources(Path("x"), ratio, shared_valid=True)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("1pct/align/0/notes.txt", "is not named <index>_<label>_<bias>.png"),
        ("1pct/align/0/3.png", "is not named"),
        ("1pct/conflict/0/3_0_x.png", "is not named"),
        ("test/0/3_0.png", "is not named"),
        ("test/0/3_0_0.gif", "is not named"),
        ("test/0/3_0_٣.png", "is not named"),  # a digit, though none that names a class
        ("1pct/valid/3_2_0.png", "has label 2, must be 0 to 1"),
        ("1pct/valid/3_0_2.png", "has bias 2, must be 0 to 1"),
        ("1pct/align/1/3_1_0.png", "does not belong under align"),
        ("1pct/conflict/1/3_1_1.png", "does not belong under conflict"),
    ],
)
def test_a_file_that_contradicts_the_layout_is_named(tmp_path: Path, name: str, says: str) -> None:
    path = picture(release(tmp_path) / "x.png").rename(tmp_path / name)
    with pytest.raises(DataError, match=says) as error:
        two(tmp_path)
    assert str(error.value).startswith(str(path))


def test_the_first_offending_file_in_order_is_named(tmp_path: Path) -> None:
    release(tmp_path)
    for name in ("2", "10", "1"):
        (tmp_path / "1pct/align" / name).mkdir(exist_ok=True)
        (tmp_path / "1pct/align" / name / "bad.txt").touch()
    with pytest.raises(DataError, match=r"align/1/bad\.txt"):
        two(tmp_path)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    release(tmp_path)
    (tmp_path / "1pct/conflict/0/3_0_1.png").write_text("<html>")
    with pytest.raises(DataError, match=r"conflict/0/3_0_1\.png is not an image"):
        two(tmp_path)


def empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("part", ["1pct/align", "1pct/conflict", "1pct/valid", "test"])
def test_an_empty_part_and_a_missing_part_are_named_with_what_to_put_there(
    tmp_path: Path, part: str
) -> None:
    empty(release(tmp_path) / part)
    with pytest.raises(DataError, match="holds no image") as error:
        two(tmp_path)
    assert str(error.value).startswith(str(tmp_path / part))
    (tmp_path / part).rmdir()
    with pytest.raises(DataError, match=r"is no folder.*1pct/align, 1pct/conflict.*--data-root"):
        two(tmp_path)


def test_a_missing_ratio_says_which_are_there(tmp_path: Path) -> None:
    for name in ("5pct", "0.5pct", "tmp.pct"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"0\.5pct, 5pct: --set dataset\.ratio=0\.005 chooses"):
        two(tmp_path)
    with pytest.raises(DataError, match=r"nowhere/1pct is no folder\. Put"):
        two(tmp_path / "nowhere")


def test_both_spellings_at_once_are_refused(tmp_path: Path) -> None:
    (release(tmp_path) / "1pct/conlict").mkdir()
    with pytest.raises(DataError, match="keep one"):
        two(tmp_path)


@pytest.mark.parametrize("where", ["1pct/align/loop", "1pct/align/0/loop", "1pct/valid/loop"])
@pytest.mark.parametrize("target", ["itself", ".", ".."])
def test_a_loop_of_links_is_an_error_and_no_hang(tmp_path: Path, where: str, target: str) -> None:
    link = release(tmp_path) / where
    link.symlink_to(link.name if target == "itself" else target)
    with pytest.raises(DataError, match=r"leads nowhere|a folder where an image is expected"):
        two(tmp_path)


@pytest.mark.parametrize("where", ["1pct/align/0/9_0_0.png", "1pct/valid/9_0_0.png", "test/9"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, where: str) -> None:
    link = release(tmp_path / "inside") / where
    outside = picture(tmp_path / "outside" / "9_0_0.png")
    link.symlink_to(outside if link.suffix else outside.parent)
    with pytest.raises(DataError, match="outside of") as error:
        two(tmp_path / "inside")
    assert str(error.value).startswith(str(link))


@pytest.mark.parametrize("part", ["1pct", "1pct/align", "test"])
def test_a_part_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path, part: str) -> None:
    where = release(tmp_path / "inside") / part
    where.rename(tmp_path / "elsewhere")
    where.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="outside of"):
        two(tmp_path / "inside")


def test_the_data_root_may_be_a_link_and_links_within_it_are_followed(tmp_path: Path) -> None:
    folder = release(tmp_path / "real")
    (folder / "test/0/20_0_0.png").symlink_to(folder / "1pct/align/0/1_0_0.png")
    (tmp_path / "link").symlink_to(folder)
    assert sorted(values(two(tmp_path / "link").test)) == [10, 70, 80, 90]


def bffhq(root: Path) -> Path:
    release(root / "bffhq", rename=lambda n: n.replace("1pct/valid", "valid").replace("1p", "0.5p"))
    return root


def test_bffhq_is_judged_by_its_conflicting_half(tmp_path: Path) -> None:
    task = check_dataset(BFFHQ(size=16), bffhq(tmp_path))
    assert task.shape.input == (3, 16, 16)
    assert (task.metric, task.select) == ("conflict", "val_conflict")
    assert task.mean == (0.4914, 0.4822, 0.4465)
    assert [len(s) for s in task.splits().values()] == [5, 2, 3]


def test_bffhq_takes_any_ratio_that_is_there(tmp_path: Path) -> None:
    (bffhq(tmp_path) / "bffhq/0.5pct").rename(tmp_path / "bffhq/20pct")
    assert len(BFFHQ(ratio=0.2).load(tmp_path).train) == 5
    with pytest.raises(DataError, match=r"There is 20pct: --set dataset\.ratio=0\.2"):
        BFFHQ().load(tmp_path)


def everything_that_is_read(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("make", ["bffhq", "waterbirds", "celeba"])
def test_the_sources_hold_every_file_that_is_read(tmp_path: Path, make: str) -> None:
    dataset = {"bffhq": BFFHQ(), "waterbirds": Waterbirds(), "celeba": CelebA()}[make]
    {"bffhq": bffhq, "waterbirds": waterbirds, "celeba": celeba}[make](tmp_path)
    held = set[Path]()
    for source in dataset.sources(tmp_path):
        held |= everything_that_is_read(source) if source.is_dir() else {source}
    assert held == everything_that_is_read(tmp_path)
    assert all(len(path.relative_to(tmp_path).parts) > 1 for path in held)


@pytest.mark.parametrize("dataset", [BFFHQ(), Waterbirds(), CelebA()])
def test_a_data_set_that_is_not_there_says_what_to_put_where(
    tmp_path: Path, dataset: BFFHQ | Waterbirds | CelebA
) -> None:
    with pytest.raises(DataError, match=r"--data-root or DEBIASBENCH_DATA") as error:
        dataset.load(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("dataset", [BFFHQ(), Waterbirds(), CelebA()])
def test_training_batches_are_changed_and_keep_their_shape(
    dataset: BFFHQ | Waterbirds | CelebA,
) -> None:
    x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    changed = dataset.augmentation()(x, torch.Generator().manual_seed(1))
    assert changed.shape == x.shape
    assert not torch.equal(changed, x)


HEADER = "img_id,img_filename,y,split,place,place_filename"
BIRDS = [
    # y, split, place: not in the order of the splits
    (0, 2, 1), (0, 0, 0), (1, 0, 1), (1, 1, 0), (0, 0, 1), (1, 2, 1),
]  # fmt: skip


def bird(i: int) -> str:
    return f"00{i % 2}.Bird/b_{i}.png"


def table(rows: list[tuple[int, int, int]] = BIRDS) -> str:
    lines = [f"{i + 1},{bird(i)},{y},{s},{p},/l/{i}.jpg" for i, (y, s, p) in enumerate(rows)]
    return "\n".join([HEADER, *lines]) + "\n"


def waterbirds(root: Path, metadata: str | None = None, name: str = "waterbirds") -> Path:
    """Write Waterbirds: image i is of value 10 i; half of the images are wide."""
    for i in range(len(BIRDS)):
        picture(root / name / bird(i), 10 * i, (30, 20) if i % 2 else (20, 25))
    (root / name / "metadata.csv").write_bytes((metadata or table()).encode())
    return root


@pytest.mark.parametrize("name", ["waterbirds", "waterbird_complete95_forest2water2"])
def test_waterbirds_are_split_and_grouped_as_their_table_says(tmp_path: Path, name: str) -> None:
    task = check_dataset(Waterbirds(size=14), waterbirds(tmp_path, name=name))
    assert task.shape.input == (3, 14, 14)
    assert [values(s) for s in task.splits().values()] == [[10, 20, 40], [30], [0, 50]]
    assert task.train.y.tolist() == [0, 1, 0]
    assert task.train.bias.tolist() == [0, 1, 1]
    assert task.conflict(task.train).tolist() == [False, False, True]
    assert task.group_counts(task.test).tolist() == [0, 1, 0, 1]
    assert (task.metric, task.select) == ("worst_group", "val_worst_group")


def test_birds_are_stretched_and_lose_their_margin_as_in_group_dro(tmp_path: Path) -> None:
    root = waterbirds(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "waterbirds" / bird(1))
    theirs = Compose([Resize((256, 256)), CenterCrop((224, 224))])(Image.fromarray(pixels))
    ours = Waterbirds().load(root).train.x[0].permute(1, 2, 0).numpy()
    assert np.array_equal(ours, np.asarray(theirs))


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
def test_the_same_table_written_otherwise_is_the_same(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    usual = Waterbirds(size=14).load(waterbirds(tmp_path / "usual"))
    other = Waterbirds(size=14).load(waterbirds(tmp_path / "other", change(table())))
    assert other.fingerprint() == usual.fingerprint()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("split", "part", r"no column 'split'; its columns are img_id, img_filename, y, part, pla"),
        ("place_filename", "y", r"more than one column 'y'"),
        ("3,000.Bird/b_2.png,1", "3,000.Bird/b_2.png,2", r"line 4: y is '2', must be 0 or 1"),
        ("3,000.Bird/b_2.png,1", "3,000.Bird/b_2.png,", r"line 4: y is '', must be 0 or 1"),
        ("b_2.png,1,0,1", "b_2.png,1,3,1", r"line 4: split is '3', must be 0 or 1 or 2"),
        ("b_2.png,1,0,1", "b_2.png,1,0,1.0", r"line 4: place is '1.0', must be 0 or 1"),
        ("3,000", "1,000", r"line 4: img_id '1' is in line 2 already"),
        ("b_2.png", "b_0.png", r"line 4: img_filename '000.Bird/b_0.png' is in line 2 already"),
        ("000.Bird/b_2.png", "../b_2.png", r"line 4: the path '../b_2.png' .*leads out of"),
        ("000.Bird/b_2.png", "a/../../b.png", r"line 4: the path .*leads out of"),
        ("000.Bird/b_2.png", "..\\b.png", r"line 4: the path .*leads out of"),
        ("000.Bird/b_2.png", "/etc/b.png", r"line 4: the path '/etc/b.png' .*leads out of"),
        ("000.Bird/b_2.png", "", r"line 4: the path '' is empty"),
        (",/l/2.jpg", "", r"line 4: 5 cells, the header has 6"),
        ("b_2.png", "b_9.png", r"000\.Bird/b_9\.png is missing, 1 of 6 images"),
        (HEADER, "", r"no column 'img_id'; its columns are 1, 001"),
    ],
)
def test_a_table_that_is_wrong_is_one_error_with_its_line(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    text = table().replace("000.Bird/b_0.png", "001.Bird/b_0.png") if old == HEADER else table()
    assert old in text
    root = waterbirds(tmp_path, text.replace(old, new, 1))
    with pytest.raises(DataError, match=says) as error:
        Waterbirds(size=14).load(root)
    assert str(root / "waterbirds") in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'img_id,"'])
def test_what_is_no_table_is_an_error(tmp_path: Path, content: bytes) -> None:
    (waterbirds(tmp_path) / "waterbirds/metadata.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"metadata\.csv.*Fetch the original file again"):
        Waterbirds(size=14).load(tmp_path)


def test_a_split_without_samples_is_named(tmp_path: Path) -> None:
    root = waterbirds(tmp_path, table([(y, 0 if s == 1 else s, p) for y, s, p in BIRDS]))
    with pytest.raises(DataError, match=r"metadata\.csv has no val sample"):
        Waterbirds(size=14).load(root)


def test_missing_images_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    root = waterbirds(tmp_path)
    empty(root / "waterbirds/000.Bird")
    (root / "waterbirds/000.Bird").rmdir()
    # training comes first: images 1, 2, 4, of which 2 and 4 lay there
    with pytest.raises(DataError, match=r"000\.Bird/b_2\.png is missing, 3 of 6 images in all"):
        Waterbirds(size=14).load(root)


ATTRIBUTES = ["Attractive", "Blond_Hair", "Male", "Young"]
FACES = [
    # blond, male, young, partition
    (0, 1, 1, 0), (0, 1, 0, 0), (0, 1, 1, 0), (0, 0, 0, 0), (1, 0, 1, 0), (1, 0, 0, 0),
    (1, 1, 1, 0), (0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 2), (0, 0, 0, 2),
]  # fmt: skip


def face(i: int) -> str:
    return f"{i + 1:06d}.png"


def attribute_text(faces: list[tuple[int, ...]] = FACES) -> str:
    lines = [
        f"{face(i)} -1 {' '.join(f'{2 * value - 1:2d}' for value in values[:3])}"
        for i, values in enumerate(faces)
    ]
    return "\n".join([str(len(faces)), " ".join(ATTRIBUTES) + " ", *lines]) + "\n"


def partition_text() -> str:
    return "".join(f"{face(i)} {values[3]}\n" for i, values in enumerate(FACES))


def celeba(root: Path, images: str = "img_align_celeba") -> Path:
    """Write CelebA: face i is of value 10 i."""
    folder = root / "celeba"
    for i in range(len(FACES)):
        picture(folder / images / face(i), 10 * i, (178, 218))
    (folder / "list_attr_celeba.txt").write_text(attribute_text())
    (folder / "list_eval_partition.txt").write_text(partition_text())
    return root


def kaggle(root: Path) -> Path:
    """Write the same as Kaggle's archive has it."""
    folder = celeba(root, "img_align_celeba/img_align_celeba") / "celeba"
    for name, header in (
        ("list_attr_celeba", ["image_id", *ATTRIBUTES]),
        ("list_eval_partition", ["image_id", "partition"]),
    ):
        text = (folder / f"{name}.txt").read_text().splitlines()
        rows = [line.split() for line in text if line.startswith("0")]
        lines = [",".join(cells) for cells in (header, *rows)]
        (folder / f"{name}.csv").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
        (folder / f"{name}.txt").unlink()
    return root


def test_celeba_is_split_and_grouped_as_its_files_say(tmp_path: Path) -> None:
    task = check_dataset(CelebA(size=16), celeba(tmp_path))
    assert task.shape.input == (3, 16, 16)
    assert [values(s) for s in task.splits().values()] == [
        [0, 10, 20, 30, 40, 50, 60], [70, 80], [90, 100],
    ]  # fmt: skip
    assert (task.classes, task.biases) == (("Blond_Hair=0", "Blond_Hair=1"), ("Male=0", "Male=1"))
    assert task.train.y.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert task.train.bias.tolist() == [1, 1, 1, 0, 0, 0, 1]
    assert task.aligned.tolist() == [[False, True], [True, False]]
    assert (task.metric, task.select) == ("worst_group", "val_worst_group")


def test_kaggles_files_give_the_same_task(tmp_path: Path) -> None:
    usual = CelebA(size=16).load(celeba(tmp_path / "usual"))
    assert CelebA(size=16).load(kaggle(tmp_path / "kaggle")).fingerprint() == usual.fingerprint()


@pytest.mark.parametrize("separator", ["+", ",", " + "])
def test_several_attributes_are_one_bias_of_all_their_combinations(
    tmp_path: Path, separator: str
) -> None:
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
    theirs = Compose([CenterCrop(178), Resize((224, 224))])(Image.fromarray(pixels))
    ours = CelebA().load(root).train.x[0].permute(1, 2, 0).numpy()
    assert np.array_equal(ours, np.asarray(theirs))


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
def test_aligned_is_what_goes_together_more_often_than_by_chance(
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
    share = table / table.sum(0)  # P(class | bias), by division where the code multiplies
    assert torch.equal(aligned, share > table.sum(1, keepdim=True) / table.sum())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bias": "Blond_Hair"}, "must be different attributes"),
        ({"bias": "Male+Male"}, "must be different attributes"),
        ({"bias": "Male+"}, "must be different attributes"),
        ({"target": ""}, "must be different attributes"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, object], says: str
) -> None:
    with pytest.raises(OptionError, match=says):
        parse(CelebA, options, owner="data set celeba")


def test_an_unknown_attribute_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"'Mail'\. Did you mean 'Male'\?.*has: Attractive, "):
        CelebA(bias="Mail").load(celeba(tmp_path))


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("list_attr_celeba", "000003.png -1 -1", "000003.png -1  2",
         r"celeba\.txt, line 5: Blond_Hair is '2', must be -1 or 0 or 1"),
        ("list_attr_celeba", "000003.png -1", "000003.png",
         r"celeba\.txt, line 5: 4 cells, the header has 5"),
        ("list_attr_celeba", "000003.png", "000002.png",
         r"line 5: image_id '000002\.png' is in line 4 already"),
        ("list_attr_celeba", "000003.png", "000099.png",
         r"list_attr_celeba\.txt lacks 000003\.png, .*; 1 of 11 images"),
        ("list_eval_partition", "000003.png 0\n", "",
         r"list_eval_partition\.txt lacks 000003\.png, .*; 1 of 11 images"),
        ("list_eval_partition", "000003.png 0", "000003.png 3",
         r"partition\.txt, line 3: partition is '3', must be 0 or 1 or 2"),
        ("list_eval_partition", "000003.png 0", "000003.png",
         r"partition\.txt, line 3: 1 cells, the header has 2"),
        ("list_eval_partition", "000003.png", "000002.png",
         r"line 3: image_id '000002\.png' is in line 2 already"),
    ],
)  # fmt: skip
def test_celebas_files_are_read_strictly(
    tmp_path: Path, file: str, old: str, new: str, says: str
) -> None:
    path = celeba(tmp_path) / "celeba" / f"{file}.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=says):
        CelebA(size=16).load(tmp_path)


def test_a_face_that_is_named_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    folder = celeba(tmp_path) / "celeba"
    for path in folder.glob("*.txt"):
        path.write_text(path.read_text().replace("000003.png", "../000003.png"))
    with pytest.raises(DataError, match=r"'\.\./000003\.png' .*leads out of"):
        CelebA(size=16).load(tmp_path)


def test_a_face_that_is_not_there_or_too_small_is_named(tmp_path: Path) -> None:
    images = celeba(tmp_path) / "celeba/img_align_celeba"
    picture(images / face(4), size=(64, 64))
    with pytest.raises(DataError, match=r"000005\.png is 64x64 .*smaller than the crop of 178x178"):
        CelebA(size=16).load(tmp_path)
    (images / face(4)).unlink()
    with pytest.raises(DataError, match=r"000005\.png is missing, 1 of 11 images"):
        CelebA(size=16).load(tmp_path)


REAL = Path(os.environ.get("DEBIASBENCH_TEST_DATA", "data")) / "celeba"
real_celeba = pytest.mark.skipif(
    not (REAL / "list_eval_partition.txt").is_file(),
    reason="no real CelebA: put celeba/ into the folder DEBIASBENCH_TEST_DATA names",
)


@real_celeba
def test_celebas_own_partition_has_the_published_sizes() -> None:
    found = list(read_partition(REAL / "list_eval_partition.txt").values())
    assert [found.count(i) for i in range(len(SPLITS))] == [162_770, 19_867, 19_962]


@real_celeba
def test_celebas_own_attributes_show_few_blond_men() -> None:
    first = REAL / "list_attr_celeba_first20000.txt"
    if not first.is_file():
        pytest.skip(f"no {first.name} in {REAL}")
    labels = list(read_attributes(first, ("Blond_Hair", "Male")).values())
    assert [labels.count(group) for group in ((0, 0), (0, 1), (1, 0), (1, 1))] == [
        sum(line.split()[10] == blond and line.split()[21] == male
            for line in first.read_text().splitlines()[2:])
        for blond in ("-1", "1") for male in ("-1", "1")
    ] == [8778, 8245, 2791, 186]  # fmt: skip
