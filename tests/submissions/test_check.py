"""A submission is checked without running it: each kind of fault has its code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from debiasbench import Supervision
from debiasbench.records.beside import PREDICTIONS, sha256
from debiasbench.records.reading import read, read_all
from debiasbench.records.report import verified
from debiasbench.records.store import Store
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.spec import Choice
from debiasbench.specs.suites import read as read_suite
from debiasbench.submissions.against import (
    Expected,
    canonical_of,
    expected,
    settings,
    suite_settings,
)
from debiasbench.submissions.check import Result, checked
from debiasbench.submissions.folder import MOST_BYTES, MOST_FILES
from debiasbench.submissions.report import as_json, as_text
from tests.records.test_record import SPEC, make_record
from tests.records.test_verify import edit, set_at
from tests.records.training import trained
from tests.submissions.folders import MINE, provenance, published, submission, texts, write_about


def codes(result: Result) -> list[str]:
    return sorted({f.code for found in result.findings.values() for f in found})


def first(place: Path) -> Path:
    return sorted((place / "records").glob("*.json"))[0]


def test_an_honest_submission_has_no_finding_and_is_listed_without_a_suite(tmp_path: Path) -> None:
    result = checked(submission(tmp_path), [published(tmp_path)])
    assert (texts(result), result.level, result.rows) == ("", "listed", 1)
    assert as_text(result) == "mine: 5 records in 1 row, 0 errors, 0 warnings: level listed\n"


# --- the folder -------------------------------------------------------------------------------


def link(place: Path) -> None:
    (place / "records" / "x.json").symlink_to("/etc/passwd")


def linked_folder(place: Path) -> None:
    (place / "records").rename(place.parent / "elsewhere")
    (place / "records").symlink_to(place.parent / "elsewhere")


def pickled(place: Path) -> None:
    (place / "records" / "weights.pth").write_bytes(b"\x80\x04.")


def large(place: Path) -> None:
    with (place / "records" / "large.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)


def many(place: Path) -> None:
    for number in range(MOST_FILES):
        (place / "records" / f"{number}.json").touch()


def fifo(place: Path) -> None:
    os.mkfifo(place / "records" / "x.json")


def renamed(place: Path) -> None:
    first(place).rename(place / "records" / "better.json")


def orphan(place: Path) -> None:
    (place / "records" / f"x{PREDICTIONS}").write_bytes(b"")


def tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def forge(place: Path) -> None:
        file = first(place).with_name(first(place).stem + PREDICTIONS)
        values = load_file(file)
        change(values)
        save_file(values, file)
        edit(first(place), lambda d: d["predictions"].update(sha256=sha256(file.read_bytes())))

    return forge


def header(place: Path) -> None:
    file = first(place).with_name(first(place).stem + PREDICTIONS)
    file.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize(
    ("forge", "code", "complaint"),
    [
        (link, "E00", "it is a symbolic link"),
        (linked_folder, "E00", "records it is a symbolic link"),
        (pickled, "E00", "weights.pth E00: it does not belong here"),
        (large, "E00", "bytes, and 8,388,608 are the most"),
        (many, "E00", "there are more than 500 files"),
        (fifo, "E00", "it is not a file"),
        (orphan, "E00", "no record in the folder has these predictions"),
        (lambda p: (p / "submission.toml").unlink(), "E00", "it is missing"),
        (lambda p: (p / "setup.py").touch(), "E00", "setup.py E00: it does not belong here"),
        (renamed, "E01", "its file name must be toy-acme_mine-0-"),
        (lambda p: first(p).write_text("{}"), "E01", "is not a debiasbench record"),
        (header, "E02", "has a header of 1,099,511,627,776 bytes"),
        (
            tensors(lambda v: v.update({"val.epoch_9": v["val.epoch_2"]})),
            "E02",
            "has 'val.epoch_9', which no selection rule of the record needs",
        ),
        (
            tensors(lambda v: v.update({"test.y": v["test.y"].astype(np.float32)})),
            "E02",
            "has 'test.y' of type 'F32'",
        ),
    ],
)
def test_a_folder_that_holds_something_else_is_refused(
    forge: Callable[[Path], object], code: str, complaint: str, tmp_path: Path
) -> None:
    place = submission(tmp_path)
    forge(place)
    result = checked(place)
    assert code in codes(result)
    assert complaint.removeprefix("records ") in texts(result)
    assert result.level == ""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"licence": "MIT"}, "licence = 'MIT': must be CC0-1.0 or CC-BY-4.0"),
        ({"claims": "best"}, "claims = 'best': must be authors or reimplementation"),
        ({"who": ""}, "who is missing. Write the name"),
        ({"contact": "x" * 501}, "must be a text of at most 500 characters"),
        ({"source": "http://x"}, "must begin with https://"),
        ({"sha256": "abc"}, "must be 64 hexadecimal digits"),
    ],
)
def test_a_wrong_submission_toml_is_named(
    change: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    place = submission(tmp_path)
    write_about(place, **change)
    result = checked(place)
    assert complaint in texts(result)
    assert codes(result) == ["E00"]


def test_unknown_keys_and_text_that_is_no_toml_are_named(tmp_path: Path) -> None:
    place = submission(tmp_path)
    text = (place / "submission.toml").read_text()
    (place / "submission.toml").write_text(f'token = "x"\n{text}')
    assert "unknown token" in texts(checked(place))
    (place / "submission.toml").write_bytes(b"\xff = [")
    assert "is not valid TOML" in texts(checked(place))


# --- the records ------------------------------------------------------------------------------


def test_a_seed_that_was_dropped_or_added_is_found(tmp_path: Path) -> None:
    place = submission(tmp_path)
    first(place).with_name(first(place).stem + PREDICTIONS).unlink()
    first(place).unlink()
    trained(place / "records", replace(MINE, seed=7), noise=7, provenance=provenance())
    result = checked(place)
    assert "E06: there is no record of seed 0 of this row" in texts(result)
    assert "E06: seed 7 must not be in this row" in texts(result)


def test_predictions_of_one_seed_under_another_are_found(tmp_path: Path) -> None:
    place = submission(tmp_path, number=4)
    trained(place / "records", replace(MINE, seed=4), noise=0, provenance=provenance())
    assert codes(checked(place)) == ["E07"]


def test_predictions_of_a_published_record_are_found(tmp_path: Path) -> None:
    known = published(tmp_path)
    place = submission(tmp_path, number=4)
    epochs = ((9, 2, 3, 10), (10, 4, 6, 9), (10, 3, 5, 9))
    trained(place / "records", replace(MINE, seed=4), epochs, noise=2, provenance=provenance())
    assert "E07" in codes(checked(place, [known]))


def test_samples_that_are_not_those_of_the_reference_are_found(tmp_path: Path) -> None:
    known = published(tmp_path)
    verified([known], write_references=known.parent / "references")
    place = submission(tmp_path)

    def reversed_(values: dict[str, Any]) -> None:
        for name in [name for name in values if name.startswith("test.")]:
            values[name] = values[name][::-1].copy()

    tensors(reversed_)(place)
    result = checked(place, [known])
    assert codes(result) == ["E03"]
    assert "test.y is not that of the reference" in texts(result)


def test_other_facts_of_the_same_data_are_found(tmp_path: Path) -> None:
    place = submission(tmp_path)
    edit(first(place), set_at("task", "metric", value="average"))
    assert "E03" in codes(checked(place, [published(tmp_path)]))


def test_more_supervision_than_another_record_of_the_method_is_found(tmp_path: Path) -> None:
    place = submission(tmp_path)
    edit(first(place), set_at("supervision", "train", value="groups"))
    assert "E09" in codes(checked(place))


def test_options_and_supervision_of_builtin_methods_are_checked(tmp_path: Path) -> None:
    method = next(iter(Plugins(installed=False).methods))
    spec = replace(SPEC, method=replace(SPEC.method, name=method, options={"no_such": 1}))
    place = submission(tmp_path, spec)
    assert "no_such" in texts(checked(place))
    spec = replace(SPEC, method=replace(SPEC.method, name="erm", options={}))
    other = submission(tmp_path / "other", spec, supervision=Supervision(train="groups"))
    assert "but erm declares" in texts(checked(other))


@pytest.mark.parametrize(
    ("change", "about", "complaint"),
    [
        ({"git": "f" * 40 + "+changes"}, {}, "had changes that were not committed (ffffffffffff"),
        ({"git": "f" * 40 + "+changes"}, {"changes": "a print"}, None),
        ({"git": "f" * 40}, {}, None),
        ({"plugins": {"method": "acme 1.1"}}, {}, "of 'acme 1.1', but submission.toml says 'acme"),
        ({"versions": {"torch": "6.6.6"}}, {}, "torch 6.6.6 must not be used: wrong sums"),
    ],
)
def test_versions_and_commits_are_checked(
    change: dict[str, Any], about: dict[str, str], complaint: str | None, tmp_path: Path
) -> None:
    place = submission(tmp_path)
    write_about(place, **about)
    edit(first(place), lambda d: d["provenance"].update(change))
    blocked = tmp_path / "blocked.toml"
    blocked.write_text(
        '[[blocked]]\ndistribution = "torch"\nversion = "6.6.6"\nreason = "wrong sums"\n'
    )
    result = checked(place, blocked=blocked)
    assert codes(result) == ([] if complaint is None else ["E10"])
    assert complaint is None or complaint in texts(result)


@pytest.mark.parametrize("started", ["2999-01-01T00:00:00+00:00", "newest", "0000"])
def test_a_date_that_no_run_has_is_found(started: str, tmp_path: Path) -> None:
    place = submission(tmp_path)
    edit(first(place), set_at("provenance", "started", value=started))
    assert codes(checked(place)) == ["E10"]


def test_data_that_are_not_the_published_ones_are_found(tmp_path: Path) -> None:
    place = submission(tmp_path)
    edit(first(place), set_at("task", "fingerprint", value="beef"))
    result = checked(place, [published(tmp_path)])
    assert codes(result) == ["E03"]
    assert "its data 'beef' are not those of toy-" in texts(result)


@pytest.mark.parametrize(
    "forge",
    [
        set_at("curves", value=[]),
        lambda d: d["outcomes"].pop("val_conflict"),
        lambda d: d["outcomes"]["val_conflict"].update(epoch=None),
    ],
)
def test_a_submission_must_hold_what_shows_which_epoch_was_best(
    forge: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    place = submission(tmp_path)
    edit(first(place), forge)
    assert "E05" in codes(checked(place))


def test_a_training_that_failed_needs_a_look(tmp_path: Path) -> None:
    place = submission(tmp_path, number=4)
    record = make_record(replace(MINE, seed=4), failed=True, provenance=provenance())
    Store(place / "records").save(record, {})
    assert codes(checked(place)) == ["W05"]


def test_seeds_may_be_run_with_different_micro_batches(tmp_path: Path) -> None:
    place = submission(tmp_path, number=4)
    small = replace(MINE, seed=4, training={**MINE.training, "micro_batch": 8})
    trained(place / "records", small, noise=4, provenance=provenance())
    result = checked(place)
    assert (codes(result), result.rows) == ([], 1)


def test_a_file_that_contradicts_itself_says_nothing_against_its_honest_twin(
    tmp_path: Path,
) -> None:
    place = submission(tmp_path, number=4)
    copy = trained(place / "records", replace(MINE, seed=4), noise=0, provenance=provenance())
    edit(copy, set_at("outcomes", "last", "test", "hits", value=[10, 10, 10, 10]))
    found = checked(place).findings
    assert [f.code for file in found for f in found[file]] == ["E04"] * len(
        found[next(iter(found))]
    )
    assert list(found) == [f"records/{copy.name}"]


def test_costs_far_from_those_of_published_records_need_a_look(tmp_path: Path) -> None:
    place = submission(tmp_path)

    def faster(data: dict[str, Any]) -> None:
        stage, cost = data["cost"]["stages"][0], data["cost"]
        stage["seconds"] = cost["training_seconds"] = 0.5
        cost.update(images_per_second=1200.0, inference_flops=1e6)

    edit(first(place), faster)
    result = checked(place, [published(tmp_path)])
    assert codes(result) == ["W01"]
    assert "1,200 images per second are more than 3 times those of" in texts(result)
    assert "a prediction takes 1e+06 FLOPs, but 2e+06" in texts(result)
    assert result.errors == 0


def test_another_result_for_a_published_spec_needs_a_look(tmp_path: Path) -> None:
    known = published(tmp_path)
    place = submission(tmp_path, SPEC)
    better = ((9, 2, 3, 10), (10, 10, 10, 10), (10, 3, 5, 9))
    trained(place / "records", SPEC, better, noise=9, provenance=provenance())
    result = checked(place, [known])
    assert [file for file, f in result.findings.items() if any(x.code == "W02" for x in f)] == [
        f"records/{SPEC.stem}.json"
    ]


# --- suites -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits-methods", "cmnist-trio", "cmnist-mlp"])
def test_every_spec_of_a_suite_has_the_settings_of_the_suite(name: str) -> None:
    plugins = Plugins(installed=False)
    suite = expected(name, plugins)
    specs = read_suite(name).specs(plugins)
    for spec in specs[:: len(specs) // 12]:
        record = replace(make_record(spec), spec=spec)
        assert list(suite_settings(record, suite, name)) == []
        in_bf16 = replace(spec, training={**spec.training, "precision": "bf16"})
        assert list(suite_settings(replace(record, spec=in_bf16), suite, name)) == []
        new = replace(spec, method=replace(spec.method, name="acme:mine"))
        assert list(suite_settings(replace(record, spec=new), suite, name)) == []


def test_a_sparsifier_with_other_options_than_in_the_suite_is_found() -> None:
    plugins = Plugins(installed=False)
    (spec, *_) = read_suite("digits-methods").specs(plugins)
    sparse = replace(spec, sparse=Choice("set", {"density": 0.1}))
    other = replace(spec, sparse=Choice("set", {"density": 0.5}))
    assert settings(sparse) != settings(other)
    suite = Expected({canonical_of(spec.dataset): {0}}, {})
    key = canonical_of(spec.dataset), canonical_of(spec.model), spec.method.name
    suite.settings[key] = {settings(sparse)}
    assert list(suite_settings(replace(make_record(spec), spec=sparse), suite, "x")) == []
    (finding,) = suite_settings(replace(make_record(spec), spec=other), suite, "x")
    assert "density" in finding.message


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ("training", "the training is not that of the suite digits-methods: epochs is 99 instead"),
        ("dataset", "has no data set digits with these options"),
        ("model", "has another network than"),
    ],
)
def test_a_spec_that_differs_from_the_suite_in_more_than_the_method_is_found(
    part: str, complaint: str
) -> None:
    plugins = Plugins(installed=False)
    spec = read_suite("digits-methods").specs(plugins)[0]
    spec = replace(spec, method=replace(spec.method, name="acme:mine"))
    if part == "training":
        spec = replace(spec, training={**spec.training, "epochs": 99})
    else:
        choice = getattr(spec, part)
        spec = replace(spec, **{part: replace(choice, options={**choice.options, "more": 1})})
    record = replace(make_record(spec), spec=spec)
    (finding,) = suite_settings(record, expected("digits-methods", plugins), "digits-methods")
    assert finding.code == "E08"
    assert complaint in finding.message


def test_published_records_of_a_suite_would_be_verified(tmp_path: Path) -> None:
    """An honest submission of real records: those of one published method, as a stranger's."""
    from debiasbench.submissions.prepare import prepared

    root = Path(__file__).parent.parent.parent / "leaderboard"
    records = [(p, r) for p, r in read_all([root / "records" / "digits"])[0] if r.outcomes]
    by_method: dict[str, list[tuple[Path, Any]]] = {}
    for path, record in records:
        by_method.setdefault(record.spec.method.name, []).append((path, record))
    complete = next(found for found in by_method.values() if len(found) == 5)
    place = tmp_path / "again"
    values = {"who": "we", "contact": "here", "licence": "CC0-1.0", "claims": "reimplementation"}
    prepared(place, [path for path, _ in complete], {**values, "suite": "digits-methods"})
    result = checked(place, [root / "records"])
    assert texts(result) == ""
    assert result.level == "verified"
    unknown = checked(place, [root / "records"], tmp_path)
    assert (codes(unknown), unknown.level) == (["W06"], "listed")
    text = (place / "submission.toml").read_text()
    (place / "submission.toml").write_text(f'changes = "a print"\n{text}')
    assert checked(place, [root / "records"]).level == "listed"


def test_an_unknown_suite_is_named(tmp_path: Path) -> None:
    place = submission(tmp_path)
    write_about(place, suite="digits-method")
    assert "Did you mean 'digits-methods'?" in texts(checked(place))
    write_about(place, suite="/etc/passwd.toml")
    assert "E08: Unknown suite" in texts(checked(place))


# --- reports ----------------------------------------------------------------------------------


def test_a_report_names_all_findings_at_once_and_nothing_in_it_controls_a_terminal(
    tmp_path: Path,
) -> None:
    place = submission(tmp_path)
    (place / "records" / "\x1b[31mred.txt").touch()
    edit(first(place), set_at("outcomes", "last", "test", "hits", value=[10, 10, 10, 10]))
    write_about(place, licence="MIT")
    result = checked(place)
    text, data = as_text(result), json.loads(as_json(result))
    assert {"E00", "E04"} <= {finding["code"] for finding in data["findings"]}
    assert data["level"] is None
    assert data["errors"] == result.errors == len(data["findings"])
    assert "\x1b" not in text + json.dumps(data, ensure_ascii=False)
    assert "E04  hits follow from predictions" in text


def test_no_code_of_a_submission_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEBIASBENCH_PLUGINS", raising=False)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an installed plugin was loaded")

    monkeypatch.setattr("importlib.metadata.entry_points", refuse)
    assert checked(submission(tmp_path)).errors == 0
    assert Store(tmp_path) is not None
    assert read(first(tmp_path / "submissions" / "mine")).spec.method.name == "acme:mine"


@pytest.mark.parametrize("part", ["method", "dataset", "model"])
def test_no_file_that_a_record_names_is_run(part: str, tmp_path: Path) -> None:
    evil = tmp_path / "submissions" / "mine" / "evil.py"
    spec = replace(MINE, **{part: Choice(f"{evil}:E")})
    place = submission(tmp_path, spec)
    evil.write_text(f"open({str(tmp_path / 'was run')!r}, 'w').close()\n")
    checked(place)
    assert not (tmp_path / "was run").exists()


def test_records_with_other_settings_than_the_suite_are_left_out_and_named(
    debiasbench: Callable[..., Any], tmp_path: Path
) -> None:
    plugins = Plugins(installed=False)
    specs = read_suite("digits-methods").specs(plugins)
    spec = next(one for one in specs if one.method.name == "erm")
    place = tmp_path / "results"
    for training, seed in (({}, 0), ({}, 1), ({"epochs": 2}, 0), ({}, 77)):
        own = replace(spec, seed=seed, training={**spec.training, **training})
        trained(place, own, ((9, 2, 3, 10), (10, 4, 6, 9), (10, 3, 5, 9)))
    words = ("submit", "prepare", "mine", place, "--suite", "digits-methods")
    result = debiasbench(*words)
    assert result.exit_code == 0, result.output
    assert "Copied 2 records" in result.stdout
    assert "epochs is 2 instead of 20" in result.stderr
    assert "has no seed 77" in result.stderr
    assert len(list(Path("submissions/mine/records").glob("*.json"))) == 2
    for path in place.glob("digits-erm-[01]-*"):
        path.unlink()
    words = ("submit", "prepare", "other", place, "--suite", "digits-methods")
    assert "No record has the settings of the suite" in debiasbench(*words).stderr
    words = ("submit", "prepare", "other", place, "--suite", "digits-method")
    assert "Did you mean 'digits-methods'?" in debiasbench(*words).stderr


def test_a_record_that_cannot_be_read_says_nothing_about_its_predictions(tmp_path: Path) -> None:
    place = submission(tmp_path)
    first(place).write_text("{")
    assert "no record in the folder has these predictions" not in texts(checked(place))
