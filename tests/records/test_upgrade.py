"""Records of schema 1 are read as records of schema 2, and no spec holds "auto" afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from debiasbench.common.errors import RecordError
from debiasbench.records.beside import read_predictions
from debiasbench.records.migrate import is_current, migrate
from debiasbench.records.reading import read, read_all
from debiasbench.records.record import from_json, to_json
from debiasbench.records.store import Store
from debiasbench.records.upgrade import SCHEMA, former_ids, spec_id
from debiasbench.specs.spec import Spec
from tests.records.test_record import SPEC, make_record
from tests.records.test_store import saved

PUBLISHED = Path(__file__).parent.parent.parent / "leaderboard" / "records"


def schema_1(
    training: dict[str, Any] | None = None,
    arithmetic: dict[str, Any] | None = None,
    micro_batches: tuple[int | None, ...] = (),
    **changes: Any,
) -> dict[str, Any]:
    """The JSON object of a record of schema 1, as commit 0591e01 wrote it."""
    data: dict[str, Any] = json.loads(to_json(make_record()))
    data["schema"] = 1
    data["spec"]["training"] |= training or {}
    data["id"] = spec_id(data["spec"])
    del data["provenance"]["code"], data["provenance"]["arithmetic"]
    if arithmetic is not None:
        data["provenance"]["arithmetic"] = arithmetic
    data["cost"]["stages"] = [{"name": "train", "micro_batch": m} for m in micro_batches]
    return data | changes


def spec_with(**training: Any) -> Spec:
    return replace(SPEC, training={**SPEC.training, **training})


BF16 = {"precision": "bf16"}


@pytest.mark.parametrize(
    ("data", "spec"),
    [
        (schema_1(), SPEC),
        (schema_1(arithmetic={"precision": "fp32"}), SPEC),
        (schema_1({"precision": "fp32"}), SPEC),
        (schema_1({"precision": "fp32"}, BF16), SPEC),
        (schema_1({"precision": "tf32"}, {"precision": "tf32"}), spec_with(precision="tf32")),
        (schema_1(arithmetic=BF16), spec_with(precision="bf16")),
        (schema_1({"precision": "auto"}, BF16), spec_with(precision="bf16")),
        (schema_1({"micro_batch": "auto"}), SPEC),
        (schema_1({"micro_batch": "auto"}, None, (None, None)), SPEC),
        (schema_1({"micro_batch": "auto"}, None, (64, None, 16)), spec_with(micro_batch=16)),
        (schema_1({"micro_batch": 32}, None, (16,)), spec_with(micro_batch=32)),
        (
            schema_1({"micro_batch": "auto"}, BF16, (8,)),
            spec_with(precision="bf16", micro_batch=8),
        ),
    ],
)
def test_auto_becomes_what_the_machine_made_of_it(data: dict[str, Any], spec: Spec) -> None:
    record = from_json(json.dumps(data))
    assert record.spec == spec
    assert record.id == spec.id
    assert record.schema == SCHEMA == 2
    assert record.provenance.code is None
    assert from_json(to_json(record)) is not None
    assert data["id"] in {spec.id, *former_ids(json.loads(to_json(record))["spec"])}


def test_a_failed_run_has_no_cost_to_take_the_micro_batch_from() -> None:
    data = json.loads(to_json(make_record(failed=True)))
    data["spec"]["training"]["micro_batch"] = "auto"
    data |= {"schema": 1, "id": spec_id(data["spec"])}
    assert from_json(json.dumps(data)).spec == SPEC


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (schema_1(id="0" * 16), "was changed by hand: its spec hashes to"),
        (schema_1(id=spec_with(precision="bf16").id, arithmetic=BF16), "was changed by hand"),
        (schema_1(spec="erm"), "is damaged: a part of schema 1"),
        (schema_1(provenance=None), "is damaged: a part of schema 1"),
        (schema_1(provenance={}), "is damaged at provenance.plugins"),
        (schema_1(schema=0), "has record schema 0"),
        (schema_1(schema=[1]), r"has record schema \[1\]"),
    ],
)
def test_a_changed_or_damaged_record_of_schema_1_is_refused(
    data: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(RecordError, match=complaint):
        from_json(json.dumps(data))


def test_the_published_records_of_schema_1_keep_their_ids() -> None:
    paths = [p for p in PUBLISHED.rglob("*.json") if not is_current(p)]
    assert len(paths) == 9
    for path in paths:
        assert read(path).id == json.loads(path.read_text())["id"]
        assert path.stem == read(path).spec.stem


def written(folder: Path, **parts: Any) -> Path:
    """Write a record of schema 1 with its predictions as commit 0591e01 did."""
    saved(folder / "elsewhere")
    made = folder / "elsewhere" / f"{SPEC.stem}.json"
    data = schema_1(**parts, predictions=json.loads(made.read_text())["predictions"])
    stem = f"toy-erm-0-{data['id']}"
    data["predictions"]["file"] = f"{stem}.predictions.safetensors"
    path = folder / f"{stem}.json"
    path.write_text(json.dumps(data))
    beside = made.with_name(f"{SPEC.stem}.predictions.safetensors")
    beside.replace(folder / data["predictions"]["file"])
    made.unlink()
    made.parent.rmdir()
    return path


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != ".locks")


def pair(spec: Spec) -> list[str]:
    return [f"{spec.stem}.json", f"{spec.stem}.predictions.safetensors"]


def test_a_store_finds_a_record_under_the_name_it_had_in_schema_1(tmp_path: Path) -> None:
    path = written(tmp_path, arithmetic=BF16)
    assert path.stem == SPEC.stem  # which is now the name of the fp32 record
    store, spec = Store(tmp_path), spec_with(precision="bf16")
    record = store.load(spec)
    assert record is not None
    assert record.spec == spec
    assert store.path(spec) == path
    assert store.finished(spec, "failed") is not None
    assert read_predictions(path, record, "last", "test")["y"].tolist() == [1, 1, 2]


def test_a_bf16_record_of_schema_1_is_not_taken_for_an_fp32_record(tmp_path: Path) -> None:
    written(tmp_path, arithmetic=BF16)
    assert Store(tmp_path).load(SPEC) is None
    assert Store(tmp_path).load(spec_with(precision="tf32")) is None


def test_every_former_name_is_tried(tmp_path: Path) -> None:
    written(tmp_path, training={"precision": "fp32", "micro_batch": "auto"}, micro_batches=(4,))
    assert Store(tmp_path).load(SPEC) is None
    assert Store(tmp_path).load(spec_with(micro_batch=4)) is not None


def test_looking_for_a_record_reads_no_other_file_and_lists_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path)

    def touched(*_: object) -> None:
        raise AssertionError

    for name in ("glob", "rglob", "iterdir", "read_text"):
        monkeypatch.setattr(Path, name, touched)
    assert Store(tmp_path).load(replace(SPEC, seed=1)) is None


def test_a_damaged_file_under_a_former_name_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / f"{SPEC.stem}.json").write_text("{")
    assert Store(tmp_path).load(spec_with(precision="bf16")) is None


def test_saving_an_fp32_record_does_not_overwrite_a_bf16_record_of_its_name(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, arithmetic=BF16)
    before = path.with_name(pair(SPEC)[1]).read_bytes()
    saved(tmp_path, provenance=replace(make_record().provenance, code="c0de"))
    bf16 = spec_with(precision="bf16")
    assert names(tmp_path) == sorted([*pair(SPEC), *pair(bf16)])
    assert (tmp_path / pair(bf16)[1]).read_bytes() == before
    new, old = Store(tmp_path).load(SPEC), Store(tmp_path).load(bf16)
    assert new is not None
    assert old is not None
    assert (new.provenance.code, old.provenance.code) == ("c0de", None)


def test_saving_a_record_replaces_the_one_under_its_former_name(tmp_path: Path) -> None:
    written(tmp_path, arithmetic=BF16)
    spec = spec_with(precision="bf16")
    Store(tmp_path).save(make_record(spec), None)
    assert names(tmp_path) == [f"{spec.stem}.json"]


def test_migration_renames_both_files_and_keeps_provenance_and_predictions(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, arithmetic=BF16)
    before = json.loads(path.read_text())
    content = path.with_name(before["predictions"]["file"]).read_bytes()
    target = migrate(path)
    spec = spec_with(precision="bf16")
    assert target == tmp_path / f"{spec.stem}.json"
    assert names(tmp_path) == pair(spec)
    after = json.loads(target.read_text())
    assert after.pop("provenance") == {**before.pop("provenance"), "code": None}
    assert after.pop("predictions") == {**before.pop("predictions"), "file": pair(spec)[1]}
    assert (tmp_path / pair(spec)[1]).read_bytes() == content
    assert (after.pop("id"), after.pop("schema")) == (spec.id, 2)
    assert after.pop("spec")["training"] == before.pop("spec")["training"] | BF16
    assert after == {k: v for k, v in before.items() if k not in {"id", "schema"}}
    text = target.read_text()
    assert migrate(target) == target
    assert target.read_text() == text


def test_migration_of_a_record_that_keeps_its_id_rewrites_it_in_place(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert migrate(path) == path
    assert is_current(path)
    assert names(tmp_path) == pair(SPEC)


def test_migration_that_was_killed_is_completed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, arithmetic=BF16)

    def killed(self: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            migrate(path)
    assert len(names(tmp_path)) == 4
    migrate(path)
    assert names(tmp_path) == pair(spec_with(precision="bf16"))


def test_migration_makes_way_for_a_record_whose_new_name_is_another_ones_old_name(
    tmp_path: Path,
) -> None:
    written(tmp_path, arithmetic=BF16)
    fp32 = written(tmp_path, training={"precision": "fp32"}, arithmetic={"precision": "fp32"})
    migrate(fp32)
    assert names(tmp_path) == sorted([*pair(SPEC), *pair(spec_with(precision="bf16"))])
    ids = {record.id for _, record in read_all([tmp_path])[0]}
    assert ids == {SPEC.id, spec_with(precision="bf16").id}


def test_migration_never_overwrites_another_record_of_the_same_spec(tmp_path: Path) -> None:
    saved(tmp_path)
    path = written(tmp_path, training={"precision": "fp32"})
    with pytest.raises(RecordError, match=r"cannot become .* which exists: remove one of them"):
        migrate(path)
    assert len(names(tmp_path)) == 4
