"""A forged record of each kind is named; honest records pass."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from debiasbench.common.errors import RecordError
from debiasbench.records.beside import PREDICTIONS, digest, read_inferred, read_predictions, sha256
from debiasbench.records.inference import INFERRED, Inference, count
from debiasbench.records.metrics import GroupCounts, accuracies
from debiasbench.records.reading import read, read_all
from debiasbench.records.record import SplitResult
from debiasbench.records.report import verified
from debiasbench.records.store import Store
from debiasbench.records.verify import verify, why_unverified
from debiasbench.specs.spec import Spec
from tests.records.test_record import SPEC, make_record

HITS = (9, 5, 4, 10)


def predictions(hits: tuple[int, ...] = HITS, seed: int = 0) -> dict[str, Any]:
    """Ten samples in each of four groups, of which `hits` are right, from number `seed` on."""
    group = np.repeat(np.arange(4, dtype=np.uint8), 10)
    y = group // 2
    right = np.concatenate([np.roll(np.arange(10) < n, seed) for n in hits])
    values = {"y": y, "group": group, "epoch_1": np.where(right, y, 1 - y).astype(np.uint8)}
    return {f"{split}.{name}": v for split in ("val", "test") for name, v in values.items()}


def honest(folder: Path, spec: Spec = SPEC, hits: tuple[int, ...] = HITS, **changes: Any) -> Path:
    """Save a record with the predictions that its hits follow from."""
    predicted = predictions(hits, spec.seed)
    entry = {"file": spec.stem + PREDICTIONS, "sha256": digest(predicted)}
    return Store(folder).save(make_record(spec, hits, predictions=entry, **changes), predicted)


def inferring(folder: Path, spec: Spec = SPEC, **changes: Any) -> Path:
    """Save a record of a method that inferred pseudo-groups, conflict and scores."""
    values, stated = inferences()
    predicted = predictions() | values
    entry = {"file": spec.stem + PREDICTIONS, "sha256": digest(predicted)}
    record = make_record(spec, HITS, predictions=entry, inference=stated, **changes)
    return Store(folder).save(record, predicted)


def inferences() -> tuple[dict[str, Any], Inference]:
    """What a method inferred of 95, 5, 5 and 95 samples in four groups, and the counts of it."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4, dtype=np.uint8), (95, 5, 5, 95))
    columns = {
        "groups": rng.integers(3, size=200).astype(np.uint8),
        "conflict": rng.random(200) < 0.2,
        "scores": rng.random(200).astype(np.float32),
    }
    values = {"train.y": group // 2, "train.group": group}
    values |= {INFERRED + name: column for name, column in columns.items()}
    return values, count(columns, group, np.eye(2, dtype=bool), 1)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a record file by hand."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def edit_predictions(path: Path, *, with_digest: bool) -> None:
    """Make every prediction right, as somebody might who wants a better record."""
    file = path.with_name(path.stem + PREDICTIONS)
    values = load_file(file)
    values["test.epoch_1"] = values["test.y"]
    save_file(values, file)
    if with_digest:
        digest = sha256(file.read_bytes())
        edit(path, lambda data: data["predictions"].update(sha256=digest))


def set_at(*place: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(data: dict[str, Any]) -> None:
        for key in place[:-1]:
            data = data[key]
        data[place[-1]] = value

    return change


ALL_RIGHT = [10, 10, 10, 10]
FORGERIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "hits": (
        lambda p: edit(p, set_at("outcomes", "last", "test", "hits", value=ALL_RIGHT)),
        "hits of last in test: 10 instead of 9 in group 0 (class a, bias x) and 2 more groups "
        "differ, by the predictions",
    ),
    "a metric": (
        lambda p: edit(p, set_at("outcomes", "last", "test", "metrics", "conflict", value=1.0)),
        "conflict of last in test is 1.0, but the hits give 0.45",
    ),
    "predictions": (
        lambda p: edit_predictions(p, with_digest=False),
        f"{SPEC.stem}.predictions.safetensors is not the file that {SPEC.stem}.json was written",
    ),
    "predictions and their digest": (
        lambda p: edit_predictions(p, with_digest=True),
        "hits of val_conflict in test: 9 instead of 10 in group 0 (class a, bias x) and 2 more "
        "groups differ, by the predictions",
    ),
    "the value of a rule": (
        lambda p: edit(p, set_at("outcomes", "val_average", "value", value=0.9)),
        "the value of val_average is 0.9, but average in val at epoch 1 is 0.7",
    ),
    "a value of last": (
        lambda p: edit(
            p,
            lambda d: (
                set_at("nulls", value={})(d),
                set_at("outcomes", "last", "value", value=0.9)(d),
            ),
        ),
        "the value of last is 0.9, but the rule has no value here",
    ),
    "the epoch of a rule": (
        lambda p: edit(p, set_at("outcomes", "val_average", "epoch", value=2)),
        "the predictions lack val.epoch_2, which val_average needs",
    ),
    "group counts of test": (
        lambda p: edit(p, set_at("task", "group_counts", "test", value=[10, 10, 10, 11])),
        "the predictions lack the labels of the 41 samples of test",
    ),
    "group counts of test with the same sum": (
        lambda p: edit(p, set_at("task", "group_counts", "test", value=[10, 9, 11, 10])),
        "group counts of test: 9 instead of 10 in group 1 (class a, bias y) and 1 more groups "
        "differ, by the labels in the predictions",
    ),
    "group counts of train": (
        lambda p: edit(p, set_at("task", "group_counts", "train", value=[1, 99, 99, 1])),
        "adjusted_average of last in val is 0.925, but the hits give",
    ),
    "which groups are aligned": (
        lambda p: edit(p, set_at("task", "aligned", value=[[False, True], [False, True]])),
        "conflict of last in val is 0.45, but the hits give",
    ),
    "the density": (
        lambda p: edit(p, set_at("cost", "density", value=0.05)),
        "the density is 0.05, but no number of weights has this density",
    ),
    "a dense density": (
        lambda p: edit(p, set_at("cost", "density", value=1.0)),
        "the density is 1.0, but 900 parameters are inactive",
    ),
    "active parameters": (
        lambda p: edit(p, set_at("cost", "active_parameters", value=50)),
        "no number of weights has this density with 950 of 1000 parameters inactive",
    ),
    "more active parameters than there are": (
        lambda p: edit(p, set_at("cost", "active_parameters", value=1001)),
        "1001 of 1000 parameters are active",
    ),
    "training FLOPs": (
        lambda p: edit(p, set_at("cost", "stages", value=[{"name": "train", "flops": 1e12}])),
        "training_flops is 3000000000000.0, but the stages add up to 1000000000000.0",
    ),
    "epochs": (
        lambda p: edit(p, set_at("cost", "stages", value=[{"name": "train", "epochs": 20}])),
        "last keeps epoch 1, but the stages took 20 epochs",
    ),
    "the status": (
        lambda p: edit(p, set_at("status", value="failed")),
        "the status is failed, but there is no failure",
    ),
    "a failure that is hidden": (
        lambda p: edit(p, set_at("outcomes", value={})),
        "the status is ok, but there are 0 outcomes",
    ),
    "no cost": (
        lambda p: edit(p, set_at("cost", value=None)),
        "the status is ok, but there is no cost",
    ),
    "the precision": (
        lambda p: edit(p, set_at("provenance", "arithmetic", value={"precision": "bf16"})),
        "the spec says precision fp32, but the provenance says bf16",
    ),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forged_record_is_named_with_the_place(kind: str, tmp_path: Path) -> None:
    forge, complaint = FORGERIES[kind]
    path = honest(tmp_path)
    assert verify(path, read(path)) == []
    if kind == "a failure that is hidden":
        edit(path, set_at("nulls", value={}))
    forge(path)
    messages = verify(path, read(path))
    assert any(complaint in message for message in messages), messages


def test_an_inference_agrees_with_what_is_stored(tmp_path: Path) -> None:
    path = inferring(tmp_path)
    record = read(path)
    assert verify(path, record) == []
    values, stated = inferences()
    assert record.inference == stated
    inferred = read_inferred(path, record)
    assert set(inferred) == {"y", "group", "groups", "conflict", "scores"}
    assert all(np.array_equal(inferred[k.split(".")[-1]], v) for k, v in values.items())
    assert set(read_predictions(path, record, "last", "test")) == {"y", "group", "predicted"}


def test_a_record_without_an_inference_has_none_to_read(tmp_path: Path) -> None:
    path = honest(tmp_path)
    with pytest.raises(RecordError, match="nothing that its method inferred"):
        read_inferred(path, read(path))


FORGED_INFERENCES: dict[str, tuple[Any, str]] = {
    "conflict": (
        set_at("inference", "conflict", value=[0, 5, 5, 0]),
        "the samples taken for conflicting are not those in the predictions",
    ),
    "groups": (
        set_at("inference", "groups", value=[[95, 0, 0, 0], [0, 5, 5, 0], [0, 0, 0, 95]]),
        "the counts of pseudo-groups are not those in the predictions",
    ),
    "fewer groups": (
        set_at("inference", "groups", value=[[95, 5, 5, 95]]),
        "the counts of pseudo-groups are not those in the predictions",
    ),
    "no groups": (
        set_at("inference", "groups", value=None),
        "the counts of pseudo-groups are not those in the predictions",
    ),
    "the AUC": (
        set_at("inference", "auc", value=1.0),
        "the AUC is 1.0, but the scores in the predictions give 0.",
    ),
    "no AUC": (
        set_at("inference", "auc", value=None),
        "the AUC is None, but the scores in the predictions give 0.",
    ),
    "no inference": (
        set_at("inference", value=None),
        "the predictions hold what the method inferred, but the record does not",
    ),
}


@pytest.mark.parametrize("kind", FORGED_INFERENCES)
def test_a_forged_inference_is_named(kind: str, tmp_path: Path) -> None:
    change, complaint = FORGED_INFERENCES[kind]
    path = inferring(tmp_path)
    edit(path, change)
    messages = verify(path, read(path))
    assert any(complaint in message for message in messages), messages


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"train.y": None}, "the predictions lack the labels of the 200 samples of train"),
        ({"train.group": np.zeros(3, dtype=np.uint8)}, "lack the labels of the 200 samples"),
        ({"train.group": np.full(200, 4, dtype=np.uint8)}, "lack the labels of the 200 samples"),
        ({"train.y": np.zeros(200, dtype=np.uint8)}, "predictions of train do not agree"),
        ({"train.group": np.repeat([0, 1, 2, 3], 50)}, "group counts of train: 95 instead of 50"),
        ({INFERRED + "scores": np.full(200, np.nan)}, "inferred.scores .* nothing that a method"),
        ({INFERRED + "scores": np.ones(200, dtype=int)}, "inferred.scores .* nothing that a"),
        ({INFERRED + "conflict": np.ones(199, dtype=bool)}, "inferred.conflict .* nothing that a"),
        ({INFERRED + "truth": np.ones(200)}, "inferred.truth .* nothing that a method"),
        ({INFERRED + "conflict": None}, "taken for conflicting are not those"),
        ({INFERRED + "groups": None}, "counts of pseudo-groups are not those"),
        ({INFERRED + "groups": np.arange(200)}, "counts of pseudo-groups are not those"),
        ({INFERRED + "scores": None}, "the scores in the predictions give None"),
    ],
)
def test_a_file_in_which_inferences_do_not_follow_is_named(
    change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    values, stated = inferences()
    stored = {k: v for k, v in (predictions() | values | change).items() if v is not None}
    entry = {"file": SPEC.stem + PREDICTIONS, "sha256": digest(stored)}
    record = make_record(SPEC, HITS, predictions=entry, inference=stated)
    path = Store(tmp_path).save(record, stored)
    assert re.search(complaint, "\n".join(verify(path, read(path))))


def test_a_failed_run_has_no_inference(tmp_path: Path) -> None:
    stated = Inference(0, conflict=[0, 0, 0, 0])
    path = Store(tmp_path).save(make_record(failed=True, inference=stated), None)
    assert verify(path, read(path)) == ["the status is failed, but there is an inference"]


@pytest.mark.parametrize("forge_id", [False, True])
def test_a_spec_that_was_edited_does_not_become_a_record(tmp_path: Path, forge_id: bool) -> None:
    path = honest(tmp_path)
    edit(path, set_at("spec", "training", "epochs", value=1))
    if not forge_id:
        _, (problem,) = read_all([tmp_path])
        assert "was changed by hand: its spec hashes to" in problem
    else:  # then it is another run, and nothing in it says that it was not made
        spec = replace(SPEC, training={**SPEC.training, "epochs": 1})
        edit(path, set_at("id", value=spec.id))
        assert verify(path, read(path)) == []


def test_an_id_that_is_not_the_specs_is_named_in_a_record_made_in_python(tmp_path: Path) -> None:
    path = honest(tmp_path)
    (message,) = verify(path, replace(read(path), id="0" * 16))
    assert message == f"the id is {'0' * 16}, but the spec hashes to {SPEC.id}"


def test_a_spec_that_depends_on_the_machine_is_named(tmp_path: Path) -> None:
    path = honest(tmp_path)
    edit(path, lambda data: data["spec"]["training"].update(precision="auto"))
    with pytest.raises(RecordError, match=r"depends on the machine: train\.precision must not be"):
        read(path)


def test_a_rule_that_does_not_keep_the_best_epoch_is_named(tmp_path: Path) -> None:
    values = predictions()
    better = predictions((9, 9, 9, 9))
    values |= {f"{s}.epoch_2": better[f"{s}.epoch_1"] for s in ("val", "test")}
    entry = {"file": SPEC.stem + PREDICTIONS, "sha256": digest(values)}
    later = make_record(hits=(9, 9, 9, 9)).outcomes["last"]
    record = make_record(predictions=entry)
    record = replace(record, outcomes={**record.outcomes, "last": replace(later, epoch=2)})
    path = Store(tmp_path).save(record, values)
    assert "val_average keeps epoch 1 with average 0.7 in val, but epoch 2 has 0.9" in verify(
        path, record
    )
    outcomes = {**record.outcomes, "last": replace(later, epoch=1)}
    outcomes["val_average"] = replace(outcomes["val_average"], epoch=2)
    assert "last keeps epoch 1, but another rule keeps epoch 2" in verify(
        path, replace(record, outcomes=outcomes)
    )


def test_a_value_may_differ_a_little_where_the_device_is_not_deterministic(
    tmp_path: Path,
) -> None:
    path = honest(tmp_path)
    edit(path, set_at("outcomes", "val_average", "value", value=0.74))
    assert len(verify(path, read(path))) == 1
    edit(path, lambda d: d["provenance"].update(deterministic=False, device="cuda"))
    assert verify(path, read(path)) == []
    edit(path, set_at("outcomes", "val_average", "value", value=0.76))  # two of 40 samples are 0.05
    assert len(verify(path, read(path))) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"test.y": np.arange(40, dtype=np.float32)},
        {"test.group": np.full(40, 10**15, dtype=np.int64)},
        {"test.group": np.full(40, -1, dtype=np.int64)},
        {"test.group": np.zeros((40, 1), dtype=np.uint8)},
    ],
)
def test_labels_that_no_run_writes_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    values = predictions() | change
    entry = {"file": SPEC.stem + PREDICTIONS, "sha256": digest(values)}
    path = Store(tmp_path).save(make_record(predictions=entry), values)
    assert verify(path, read(path)) == ["the predictions lack the labels of the 40 samples of test"]


def test_labels_of_classes_that_do_not_fit_the_groups_are_named(tmp_path: Path) -> None:
    values = predictions()
    values["test.y"] = 1 - values["test.y"]
    entry = {"file": SPEC.stem + PREDICTIONS, "sha256": digest(values)}
    path = Store(tmp_path).save(make_record(predictions=entry), values)
    assert verify(path, read(path))[0].startswith("the classes and the groups in the predictions")


def test_a_file_that_holds_no_predictions_is_named(tmp_path: Path) -> None:
    path = honest(tmp_path)
    path.with_name(path.stem + PREDICTIONS).write_bytes(b"hello")
    edit(path, lambda data: data["predictions"].update(sha256=sha256(b"hello")))
    (message,) = verify(path, read(path))
    assert "is not a predictions file" in message


def test_missing_predictions_are_a_note_and_the_rest_is_still_checked(tmp_path: Path) -> None:
    path = honest(tmp_path)
    path.with_name(path.stem + PREDICTIONS).unlink()
    assert verify(path, read(path)) == []
    assert why_unverified(path, read(path)) == (
        f"its predictions are missing ({SPEC.stem}.predictions.safetensors)"
    )
    edit(path, set_at("outcomes", "last", "test", "hits", value=ALL_RIGHT))
    assert any("but the hits give 1.0" in message for message in verify(path, read(path)))


def test_a_failed_run_has_nothing_to_compare(tmp_path: Path) -> None:
    path = Store(tmp_path).save(make_record(failed=True), None)
    assert verify(path, read(path)) == []
    assert why_unverified(path, read(path)) is None
    assert "failed, but there are 5 outcomes" in "".join(
        verify(path, replace(read(path), outcomes=make_record().outcomes))
    )


def test_an_undefined_metric_agrees_with_itself(tmp_path: Path) -> None:
    record = make_record()
    totals = {**record.task.group_counts, "test": [10, 0, 0, 10]}
    counts = GroupCounts.of([9, 0, 0, 10], totals["test"], record.task.aligned, totals["train"])
    test = SplitResult([9, 0, 0, 10], accuracies(counts))
    assert math.isnan(test.metrics["conflict"])
    outcomes = {rule: replace(o, test=test) for rule, o in record.outcomes.items()}
    task = replace(record.task, group_counts=totals)
    assert verify(tmp_path / "x.json", replace(record, task=task, outcomes=outcomes)) == []


def test_a_report_sorts_records(tmp_path: Path) -> None:
    specs = [replace(SPEC, seed=seed) for seed in range(3)]
    paths = [honest(tmp_path, spec) for spec in specs]
    edit(paths[1], set_at("cost", "density", value=1.0))
    paths[2].with_name(paths[2].stem + PREDICTIONS).unlink()
    report, _ = verified([tmp_path])
    assert report.records == 3
    assert [path for path, found in report.findings if found[0].is_error] == [paths[1]]
    assert [path for path, _ in report.unverified] == [paths[2]]
    assert "1 verified, 1 without predictions, 1 contradictory" in report.summary
