"""The published records: each agrees with itself, and each set is the suite it is said to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from debiasbench.records.reading import read_all
from debiasbench.records.report import verified
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.spec import Spec
from debiasbench.specs.suites import read

RECORDS = Path(__file__).parent.parent.parent / "leaderboard" / "records"


def test_every_published_record_passes() -> None:
    report, _ = verified([RECORDS])
    errors = {path.name: [f for f in found if f.is_error] for path, found in report.findings}
    assert {name: found for name, found in errors.items() if found} == {}
    assert (report.unreadable, report.unverified) == ([], [])
    assert report.records > 0


def test_every_published_record_has_the_name_of_its_spec() -> None:
    for path, record in read_all([RECORDS])[0]:
        assert path.stem == record.spec.stem


def test_the_records_on_digits_are_those_of_the_suite() -> None:
    records = [record for _, record in read_all([RECORDS / "digits"])[0]]
    assert {r.id for r in records} == {s.id for s in read("digits-methods").specs(Plugins([]))}


def test_the_records_of_other_densities_are_those_of_the_suite() -> None:
    records = [record for _, record in read_all([RECORDS / "digits-density"])[0]]
    assert {r.id for r in records} == {s.id for s in read("digits-density").specs(Plugins([]))}


def as_recorded(spec: Spec) -> Spec:
    """Return the spec as the records on the H200 have it: in bf16, by the first rules."""
    return replace(spec, training={**spec.training, "precision": "bf16"}, revisions=None)


def test_the_records_of_the_h200_are_the_trio_except_erm_at_2_and_5_percent() -> None:
    specs = [as_recorded(spec) for spec in read("cmnist-trio").specs(Plugins())]
    assert len(specs) == 36
    missing = [
        spec
        for spec in specs
        if spec.method.name == "erm" and spec.dataset.options["ratio"] in (0.02, 0.05)
    ]
    assert len(missing) == 6
    records = [record for _, record in read_all([RECORDS / "cmnist-h200"])[0]]
    assert len(records) == 30
    assert {r.id for r in records} == {s.id for s in specs} - {s.id for s in missing}
    assert {r.provenance.hardware for r in records} == {"NVIDIA H200"}
    assert {r.provenance.arithmetic["precision"] for r in records} == {"bf16"}
