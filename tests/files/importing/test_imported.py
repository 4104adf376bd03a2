"""Using an imported data set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from debiasbench.common.errors import DataError
from debiasbench.datasets.imported import Imported
from debiasbench.files import importing, task_folder
from debiasbench.files.importing import Source, import_data
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests.running import run


@pytest.mark.slow
def test_finding_imported_data_imports_no_large_package(birds: Source, tmp_path: Path) -> None:
    done = import_data("birds", birds, tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from debiasbench.files.importing import find, names\n"
        f"root = Path({str(tmp_path)!r})\n"
        "print(find(root, 'birds'), find(root, 'bird'), find(root, '../imported/birds'), "
        "names(root), names(root / 'x'))\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'PIL', 'pydantic'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown == [f"{done.digest} None None ['birds'] []", "[]"]


def test_other_missing_and_damaged_data_have_different_errors(
    birds: Source, tmp_path: Path
) -> None:
    done = import_data("birds", birds, tmp_path)
    with pytest.raises(DataError, match=r"contains other data .* leave out dataset.digest"):
        Imported(name="birds", digest="0" * 64).load(tmp_path)
    for name in ("birdz", "", "../birds"):
        with pytest.raises(DataError, match=r"No data set .* Imported: birds. If it is elsewhere"):
            Imported(name=name).load(tmp_path)
    file = done.folder / "train-x.npy"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(DataError, match=r"train-x.npy was changed.*data import birds --replace"):
        Imported(name="birds").load(tmp_path)
    (done.folder / "task.json").write_text("{")
    for use in (importing.find, lambda root, name: Imported(name=name).load(root)):
        with pytest.raises(DataError, match=r"task.json .*data import birds --replace"):
            use(tmp_path, "birds")
    import_data("birds", birds, tmp_path, replace=True)
    assert importing.find(tmp_path, "birds") == done.digest


def test_the_folder_describes_where_the_data_came_from(birds: Source, tmp_path: Path) -> None:
    done = import_data("birds", birds, tmp_path)
    more = task_folder.facts(done.folder)["more"]
    assert (
        more["images"]
        == {"train": 26, "val": 6, "test": 8}
        == dict(zip(("train", "val", "test"), map(len, done.task.splits().values()), strict=True))
    )
    assert more["source"]["images"] == str(birds.images)
    assert more["source"]["bias"] == ["place"]
    assert more["left_out"] == 0


def test_imported_data_can_be_used_for_training(
    birds: Source, tmp_path: Path, plugins: Plugins
) -> None:
    done = import_data("birds", birds, tmp_path)
    spec = make_spec(
        plugins,
        method="erm",
        dataset="imported:birds",
        model="mlp",
        dataset_options={"digest": done.digest},
        model_options={"hidden": [8]},
        training={"epochs": 1},
    )
    record = run(spec, plugins, results=tmp_path / "results", data_root=tmp_path).record
    assert record.status == "ok"
    assert record.task.fingerprint == done.task.fingerprint()
    assert sum(record.task.group_counts["test"]) == 8
