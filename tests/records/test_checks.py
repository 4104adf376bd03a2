"""A forged record of each kind is found by its code; honest records of every age are accepted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from debiasbench.common.errors import RecordError
from debiasbench.records.beside import PREDICTIONS, sha256
from debiasbench.records.checks.finding import CODES, Finding
from debiasbench.records.checks.labels import Collected
from debiasbench.records.reading import read, read_all, stream
from debiasbench.records.record import Curves
from debiasbench.records.report import verified
from debiasbench.records.selection import RULES
from debiasbench.records.store import Store
from debiasbench.records.verify import Together, examine
from tests.records.test_record import SPEC, make_record
from tests.records.test_verify import edit, honest, set_at
from tests.records.training import EPOCHS, seeds, trained

PUBLISHED = Path(__file__).parent.parent.parent / "leaderboard"


def codes(path: Path) -> list[str]:
    return [finding.code for finding in examine(path, read(path)).findings]


def together(*paths: Path) -> list[Finding]:
    """What is found in records that are compared with each other."""
    compared = Together()
    return [f for path in paths for f in compared.examine(path, read(path)).findings]


def test_an_honest_training_has_no_finding(tmp_path: Path) -> None:
    assert together(*seeds(tmp_path)) == []


def test_every_code_says_what_it_checks() -> None:
    assert all(code[0] in "EW" and code[1:].isdigit() and text for code, text in CODES.items())
    assert Finding("E01", "x").is_error
    assert not Finding("W01", "x").is_error


# --- epochs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [rule for rule, metric in RULES.items() if metric])
def test_an_epoch_that_was_chosen_by_its_test_result_is_found(rule: str, tmp_path: Path) -> None:
    # no other rule keeps epoch 1, so that only the curves show that it is not the best
    path = trained(tmp_path, kept={rule: 1})
    found = [f for f in examine(path, read(path)).findings if f.code == "E05"]
    assert any(f"{rule} keeps epoch 1" in f.message for f in found), found


def test_an_epoch_is_found_to_be_worse_than_one_that_no_rule_keeps(tmp_path: Path) -> None:
    kept = dict.fromkeys(RULES, 1)
    path = trained(tmp_path, kept={**kept, "last": 3})
    messages = [f.message for f in examine(path, read(path)).findings]
    assert (
        "val_conflict keeps epoch 1 with conflict 0.15 in val, but must keep epoch 2 with 0.55"
        in messages
    )


def test_of_equal_epochs_the_one_that_the_revision_of_the_rules_names_is_required(
    tmp_path: Path,
) -> None:
    # the worst group is 0.1 in all epochs; the second has the best unbiased accuracy
    epochs = ((1, 2, 9, 9), (1, 9, 9, 9), (1, 5, 9, 9))
    new = replace(SPEC, revisions={"rules": 2})
    assert codes(trained(tmp_path / "new", new, epochs)) == []
    assert codes(trained(tmp_path / "early", new, epochs, kept={"val_worst_group": 1})) == ["E05"]
    old = {"val_worst_group": 1}
    assert codes(trained(tmp_path / "old", SPEC, epochs, kept=old)) == []
    assert codes(trained(tmp_path / "late", SPEC, epochs, kept={"val_worst_group": 3})) == ["E05"]


def test_a_network_that_becomes_sparse_may_not_have_been_selectable_early(tmp_path: Path) -> None:
    kept = dict.fromkeys(RULES, 3)
    assert "E05" in codes(trained(tmp_path / "dense", kept=kept))
    sparse = replace(SPEC, sparse=replace(SPEC.method, name="set"))
    assert codes(trained(tmp_path / "sparse", sparse, kept=kept)) == []


@pytest.mark.parametrize(
    ("forge", "complaint"),
    [
        (set_at("curves", value=[]), None),  # an older record
        (lambda d: d["curves"][0]["values"]["val_unbiased"].__setitem__(1, 0.99), "the curve of"),
        (lambda d: d["curves"][0]["values"]["loss"].pop(), "but the curves of 'train' have"),
        (lambda d: d["curves"].append(d["curves"][0]), "1 stages, but curves of 2"),
        (lambda d: d["curves"][0].update(stage="other"), "the curves of 'other'"),
        (
            lambda d: [v.append(0.1) for v in d["curves"][0]["values"].values()],
            "no stage has validation curves that end with the epoch",
        ),
    ],
)
def test_curves_that_do_not_fit_are_found(
    forge: Any, complaint: str | None, tmp_path: Path
) -> None:
    path = trained(tmp_path)
    edit(path, forge)
    found = [str(f) for f in examine(path, read(path)).findings]
    if complaint is None:
        assert found == []
    else:
        assert any(f.startswith("E05: ") and complaint in f for f in found), found


def test_hits_that_differ_from_the_curves_are_accepted_on_devices_that_are_not_deterministic(
    tmp_path: Path,
) -> None:
    path = trained(tmp_path)
    unbiased = read(path).curves[0].values["val_unbiased"]
    edit(path, lambda d: d["curves"][0]["values"]["val_average"].__setitem__(1, unbiased[1] + 0.01))
    assert codes(path) == ["E05"]
    edit(path, lambda d: d["provenance"].update(deterministic=False, device="cuda"))
    value = unbiased[1] + 0.01
    edit(path, set_at("outcomes", "val_average", "value", value=value))
    assert codes(path) == []


def test_ties_of_a_rule_that_reads_no_bias_labels_go_to_the_later_epoch(tmp_path: Path) -> None:
    # all have the same average
    epochs = ((5, 5, 9, 9), (9, 9, 5, 5), (9, 5, 5, 9))
    new = replace(SPEC, revisions={"rules": 2})
    assert codes(trained(tmp_path / "last", new, epochs)) == []
    for epoch in (1, 2):
        path = trained(tmp_path / str(epoch), new, epochs, kept={"val_average": epoch})
        assert codes(path) == ["E05"]


def test_a_cpu_is_deterministic_whatever_the_record_says(tmp_path: Path) -> None:
    path = trained(tmp_path)
    unbiased = read(path).outcomes["val_average"].value
    edit(path, set_at("provenance", "deterministic", value=False))
    edit(path, set_at("outcomes", "val_average", "value", value=unbiased + 0.01))
    assert set(codes(path)) == {"E05"}


def test_the_tolerance_of_an_average_is_that_of_two_of_all_samples(tmp_path: Path) -> None:
    # 2 of 40 samples are 0.05 of the average, and 0.2 of the worst group
    path = trained(tmp_path, kept={"val_average": 1}, curves=[])
    edit(path, lambda d: d["provenance"].update(deterministic=False, device="cuda"))
    assert set(codes(path)) == {"E05"}


@pytest.mark.parametrize(
    "forge",
    [
        lambda d: (
            d["cost"]["stages"][0].update(seconds=0.0, samples=0),
            d["cost"].update(training_seconds=0.0, images_per_second=0.0),
        ),
        lambda d: d["curves"][0]["values"]["val_unbiased"].__setitem__(1, 1e999),
    ],
)
def test_a_strange_number_is_a_finding_and_not_a_crash(forge: Any, tmp_path: Path) -> None:
    path = trained(tmp_path)
    text = path.read_text()
    data = json.loads(text)
    forge(data)
    for name, value in ((k, v) for c in data["curves"] for k, v in c["values"].items()):
        for number, one in enumerate(value):
            if one == float("inf"):
                value[number] = None
                data["nulls"][f"curves.0.values.{name}.{number}"] = "inf"
    path.write_text(json.dumps(data))
    assert codes(path)


def test_uneven_curves_of_a_failed_training_are_found(tmp_path: Path) -> None:
    record = make_record(failed=True)
    values = {"loss": [1.0, 2.0], "val_loss": []}
    path = Store(tmp_path).save(replace(record, curves=[Curves("train", values)]), {})
    assert codes(path) == ["E01"]


def test_what_a_check_cannot_read_is_an_error_of_that_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    path = trained(tmp_path)
    monkeypatch.setattr("debiasbench.records.verify.implausible", broken)
    (finding,) = examine(path, read(path)).findings
    assert finding.code == "E01"
    assert "cannot be checked (ZeroDivisionError: division by zero)" in finding.message


# --- labels and copies ------------------------------------------------------------------------


def relabel(path: Path) -> None:
    """Reverse the order of the test samples, with everything that is known of them."""
    file = path.with_name(path.stem + PREDICTIONS)
    values = {
        name: v[::-1].copy() if name.startswith("test.") else v
        for name, v in load_file(file).items()
    }
    save_file(values, file)
    edit(path, lambda data: data["predictions"].update(sha256=sha256(file.read_bytes())))


def test_samples_that_were_relabelled_or_reordered_are_found(tmp_path: Path) -> None:
    first, second = seeds(tmp_path, 2)
    relabel(second)
    assert codes(second) == []  # nothing in the record itself shows it
    (finding,) = together(first, second)
    assert finding.code == "E03"
    assert finding.message.startswith(f"test.y is not that of {first.name} on the data f00d")


def test_a_reference_finds_the_only_record_that_was_relabelled(tmp_path: Path) -> None:
    (path,) = seeds(tmp_path / "records", 1)
    _, written = verified([path], write_references=tmp_path / "references")
    assert [file.name for file in written] == ["f00d.safetensors"]
    assert verified([path])[0].bad == 0
    relabel(path)
    report, _ = verified([path])
    assert [f.code for _, found in report.findings for f in found] == ["E03"]
    assert verified([path], references=tmp_path / "elsewhere")[0].bad == 0


def test_a_reference_is_not_replaced_by_other_labels(tmp_path: Path) -> None:
    (path,) = seeds(tmp_path / "records", 1)
    collected = Collected()
    found = examine(path, read(path))
    assert found.stored is not None
    collected.add(read(path), found.stored)
    collected.write(tmp_path / "apart")
    assert collected.write(tmp_path / "apart") == []  # nothing new
    relabel(path)
    other, stored = Collected(), examine(path, read(path)).stored
    assert stored is not None
    other.add(read(path), stored)
    with pytest.raises(RecordError, match=r"has another test\.y than the records"):
        other.write(tmp_path / "apart")


def test_a_damaged_reference_is_named(tmp_path: Path) -> None:
    (path,) = seeds(tmp_path / "records", 1)
    (tmp_path / "references").mkdir()
    (tmp_path / "references" / "f00d.safetensors").write_bytes(b"no")
    (finding,) = together(path)
    assert "is not a file of labels" in finding.message


def test_predictions_that_are_submitted_for_another_seed_are_found(tmp_path: Path) -> None:
    first = trained(tmp_path, noise=1)
    copy = trained(tmp_path, replace(SPEC, seed=1), noise=1)
    found = together(first, copy)
    assert [f.code for f in found] == ["W04", "W04"]  # the losses are the same, too
    assert f"its predictions are those of {SPEC.stem}, another seed" in [f.message for f in found]


def test_losses_of_another_seed_are_found_although_predictions_were_changed(tmp_path: Path) -> None:
    first = trained(tmp_path, noise=1)
    copy = trained(
        tmp_path, replace(SPEC, seed=1), ((9, 1, 2, 10), (9, 5, 6, 10), EPOCHS[2]), noise=1
    )
    edit(copy, lambda d: d["curves"][0]["values"].update(loss=read(first).curves[0].values["loss"]))
    assert "W04" in [f.code for f in together(first, copy)]


def test_equal_predictions_of_two_methods_need_a_look_and_are_no_error(tmp_path: Path) -> None:
    first = trained(tmp_path)
    other = trained(tmp_path, replace(SPEC, method=replace(SPEC.method, name="other")))
    (finding,) = together(first, other)
    assert (finding.code, finding.is_error) == ("W03", False)


def test_seeds_that_all_follow_the_bias_alone_are_no_copies(tmp_path: Path) -> None:
    follows = ((10, 0, 0, 10),)
    paths = [trained(tmp_path, replace(SPEC, seed=seed), follows, noise=seed) for seed in range(3)]
    for path in paths:
        edit(path, set_at("curves", value=[]))
    assert together(*paths) == []


# --- costs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "cost", "complaint"),
    [
        ({"seconds": 1e-5}, {"training_seconds": 1e-5, "images_per_second": 6e7}, "FLOP/s, more"),
        ({"flops": 10.0}, {"training_flops": 10.0}, "for the prediction of one"),
        ({"seconds": 0.0}, {"training_seconds": 0.0}, "600 samples in 0.0 seconds"),
        ({}, {"images_per_second": 9000.0}, "images_per_second is 9000, but 600 samples"),
    ],
)
def test_a_cost_that_cannot_be_needs_a_look(
    stage: dict[str, Any], cost: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    path = trained(tmp_path)
    edit(path, lambda d: (d["cost"]["stages"][0].update(stage), d["cost"].update(cost)))
    found = [f for f in examine(path, read(path)).findings if f.code == "W01"]
    assert any(complaint in f.message for f in found), found
    assert examine(path, read(path)).messages == []


# --- what is honest ---------------------------------------------------------------------------


def test_honest_records_of_older_versions_are_accepted(tmp_path: Path) -> None:
    path = honest(tmp_path)  # no curves, revision 1 of the rules
    assert codes(path) == []
    edit(path, lambda d: (d.update(schema=1), d["provenance"].pop("code")))
    assert json.loads(path.read_text())["schema"] == 1
    assert codes(path) == []


def test_the_published_data_have_references() -> None:
    records, _ = read_all([PUBLISHED / "records"])
    fingerprints = {record.task.fingerprint for _, record in records if record.outcomes}
    assert fingerprints <= {file.stem for file in (PUBLISHED / "references").iterdir()}


@pytest.mark.parametrize(
    "forge",
    ["hits", "metric", "predictions", "epoch", "relabelled", "id"],
)
def test_a_published_record_that_is_forged_is_found(forge: str, tmp_path: Path) -> None:
    """The same with a real record: the first that has curves, epochs and predictions."""
    path = _copied(tmp_path)
    assert codes(path) == []
    rules = list(read(path).outcomes)
    rule = next(r for r in rules if r != "last")
    changes = {
        "hits": lambda d: d["outcomes"][rule]["test"].update(
            hits=d["task"]["group_counts"]["test"]
        ),
        "metric": lambda d: d["outcomes"][rule]["test"]["metrics"].update(unbiased=0.999),
        "epoch": lambda d: d["outcomes"].update({rule: {**d["outcomes"]["last"], "value": 0.9}}),
        "id": lambda d: d["spec"]["training"].update(epochs=1),
    }
    if forge == "relabelled":
        relabel(path)
    elif forge == "predictions":
        file = path.with_name(path.stem + PREDICTIONS)
        values = load_file(file)
        save_file({**values, "test.y": values["test.y"][::-1].copy()}, file)
    else:
        edit(path, changes[forge])
    if forge == "id":
        with pytest.raises(RecordError, match="was changed by hand"):
            read(path)
        return
    expected = {"hits": "E04", "metric": "E04", "predictions": "E02", "epoch": "E05"}
    found = Together(PUBLISHED / "references").examine(path, read(path)).findings
    assert expected.get(forge, "E03") in [f.code for f in found], found


def _copied(folder: Path) -> Path:
    """Copy a published record whose rules keep different epochs, with its predictions."""
    for path, record in stream([PUBLISHED / "records" / "digits"], []):
        epochs = {outcome.epoch for outcome in record.outcomes.values()}
        if record.curves and len(epochs) > 1 and None not in epochs:
            for name in (path.name, path.stem + PREDICTIONS):
                (folder / name).write_bytes(path.with_name(name).read_bytes())
            return folder / path.name
    raise AssertionError("there is no published record with curves")
