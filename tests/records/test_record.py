"""Specs hash the same everywhere; records survive JSON, and nothing else is read as a record."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from debiasbench import Supervision
from debiasbench.common.errors import RecordError
from debiasbench.records.record import (
    Cost,
    Failure,
    Outcome,
    Provenance,
    Record,
    SplitResult,
    TaskFacts,
    from_json,
    to_json,
)
from debiasbench.records.selection import RULES
from debiasbench.specs.spec import Choice, Spec

SPEC = Spec(
    dataset=Choice("toy", {"ratio": 0.05}),
    model=Choice("mlp", {"hidden": [4]}),
    method=Choice("erm"),
    training={"epochs": 2, "lr": 0.1},
    seed=0,
)


def make_record(
    spec: Spec = SPEC,
    hits: tuple[int, ...] = (9, 5, 4, 10),
    *,
    failed: bool = False,
    **changes: Any,
) -> Record:
    """Make a record of two classes and two biases, ten test samples a group."""
    from debiasbench.records.metrics import GroupCounts, accuracies

    aligned, train = [[True, False], [False, True]], [95, 5, 5, 95]
    counts = GroupCounts.of(hits, [10] * 4, aligned, train)
    result = SplitResult(list(hits), accuracies(counts))
    outcomes = {
        rule: Outcome(1, math.nan if metric is None else result.metrics[metric], result, result)
        for rule, metric in RULES.items()
    }
    record = Record(
        id=spec.id,
        status="failed" if failed else "ok",
        spec=spec,
        supervision=Supervision(),
        task=TaskFacts(
            classes=["a", "b"],
            biases=["x", "y"],
            aligned=aligned,
            metric="unbiased",
            select="val_unbiased",
            group_counts={"train": train, "val": [10] * 4, "test": [10] * 4},
            fingerprint="f00d",
        ),
        provenance=Provenance(
            plugins={"dataset": "acme 1.0", "model": "debiasbench 1", "method": "debiasbench 1"},
            versions={"python": "3.11.7", "torch": "2.15.0", "debiasbench": "0.1.0"},
            device="cpu",
            hardware="a machine",
            deterministic=True,
            git=None,
            started="2026-11-23T00:00:00+00:00",
        ),
    )
    if failed:
        failure = Failure("NonFiniteLoss", "The loss became NaN", "train", 12, math.inf)
        return replace(record, failure=failure, **changes)
    cost = Cost(10.0, 8.0, 1000.0, 10**9, 1000, 100, 0.1, 2e6, 3e12, [{"name": "train"}])
    return replace(record, outcomes=outcomes, cost=cost, **changes)


def test_the_id_is_the_hash_of_the_canonical_spec_and_does_not_change() -> None:
    # a changed id would make every finished run run again
    assert SPEC.id == "49a1dbb9c6d5fbe4"
    assert SPEC.stem == "toy-erm-0-49a1dbb9c6d5fbe4"


@pytest.mark.parametrize("text", ["/m/[ a ]", "[\t1 ]", "[ 1,  2 ]", "a\n[ b\n]"])
def test_a_text_of_a_spec_is_kept_as_it_is(text: str) -> None:
    record = make_record(replace(SPEC, model=Choice("timm", {"name": text})))
    again = from_json(to_json(record))
    assert again.spec.model.options["name"] == text
    assert to_json(again) == to_json(record)


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, seed=1),
        replace(SPEC, training={"epochs": 3, "lr": 0.1}),
        replace(SPEC, dataset=Choice("toy", {"ratio": 0.01})),
        replace(SPEC, method=Choice("erm", {"x": 1})),
        replace(SPEC, model=Choice("cnn")),
    ],
)
def test_every_part_of_a_spec_changes_its_id(other: Spec) -> None:
    assert other.id != SPEC.id


def test_a_file_name_stays_in_its_folder_whatever_the_names() -> None:
    assert replace(SPEC, dataset=Choice("../..//x")).stem.startswith(".._..__x-erm-0-")


def test_a_record_comes_back_from_json_equal_nan_and_infinity_included() -> None:
    for record in (make_record(), make_record(failed=True)):
        back = from_json(to_json(record))
        assert to_json(back) == to_json(record)
    assert math.isnan(from_json(to_json(make_record())).outcomes["last"].value)
    failure = from_json(to_json(make_record(failed=True))).failure
    assert failure is not None
    assert failure.last_loss == math.inf


def test_json_holds_null_for_nan_and_lists_it() -> None:
    data = json.loads(to_json(make_record()), parse_constant=pytest.fail)
    assert data["outcomes"]["last"]["value"] is None
    assert data["nulls"] == {"outcomes.last.value": "nan"}


def damaged(**changes: Any) -> str:
    data = json.loads(to_json(make_record()))
    data.update(changes)
    return json.dumps(data)


def altered(*path: str, **changes: Any) -> str:
    data = json.loads(to_json(make_record()))
    inner = data
    for key in path:
        inner = inner[key]
    inner.update(changes)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("[1, 2]", "is not a debiasbench record"),
        ('{"name": "left-pad"}', "is not a debiasbench record"),
        (damaged(schema=99), "has record schema 99; .* reads schemas 1, 2"),
        (damaged(status="fine"), "is damaged at status"),
        (damaged(cost={}), "is damaged at cost"),
        (damaged(surprise=1), "is damaged at surprise"),
        (damaged(nulls={"no.such.place": "nan"}), "is damaged in `nulls`"),
        (damaged(nulls=[1]), "is damaged in `nulls`"),
        (damaged(id="0" * 16), "was changed by hand"),
        (damaged(supervision={"train": "all", "val": "none"}), "is damaged at supervision"),
        (damaged(nulls={}, outcomes={"best": {}}), "is damaged at outcomes"),
        (altered("task", metric="f1"), "contradicts itself: metric 'f1'"),
        (altered("task", select="best"), "contradicts itself: .* rule 'best'"),
        (altered("task", group_counts={}), "contradicts itself: group counts of train"),
        (altered("task", aligned=[[True]]), "contradicts itself: aligned"),
        (altered("task", classes=[], aligned=[]), "contradicts itself: group counts"),
        (
            altered("outcomes", "last", "test", hits=[99, 0, 0, 0]),
            "contradicts itself: hits of last",
        ),
        (altered("outcomes", "last", "test", hits=[1]), "contradicts itself: hits of last"),
    ],
)
def test_a_text_that_is_not_a_record_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(RecordError, match=complaint.replace("`", ".")):
        from_json(text)
