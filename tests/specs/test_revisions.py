"""Code whose results change has another revision, and runs of it have another id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.methods.erm import ERM
from debiasbench.records.record import to_json
from debiasbench.records.store import read
from debiasbench.runs.session import Session
from debiasbench.specs.maker import Maker
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.revisions import RULES_REVISION, changed, renewed
from debiasbench.specs.spec import Choice, Spec
from tests.conftest import Toy
from tests.records.test_record import SPEC


def spec_of(plugins: Plugins) -> Spec:
    return make_spec(plugins, method="erm", dataset="toy", model="mlp")


def test_only_revisions_above_1_are_in_a_spec(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = spec_of(plugins)
    assert before.revisions == {"rules": RULES_REVISION}
    monkeypatch.setattr(ERM, "revision", 3)
    monkeypatch.setattr(Toy, "revision", 2)
    after = spec_of(plugins)
    assert after.revisions == {"rules": RULES_REVISION, "dataset": 2, "method": 3}
    assert after.id != before.id
    assert replace(after, revisions=before.revisions) == before


def test_a_grid_of_specs_has_the_revisions_of_each_part(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ERM, "revision", 3)
    maker = Maker(plugins)
    made = [
        maker.new({"method": m, "dataset": "toy", "seed": s})
        for m in ("erm", "lff")
        for s in (0, 1)
    ]
    assert [spec and spec.revisions for spec in made] == [
        {"rules": RULES_REVISION, "method": 3},
        {"rules": RULES_REVISION, "method": 3},
        {"rules": RULES_REVISION},
        {"rules": RULES_REVISION},
    ]
    assert made[0] == make_spec(plugins, method="erm", dataset="toy")


def test_a_spec_of_an_older_revision_is_run_as_one_of_the_installed_code(
    plugins: Plugins, tmp_path: Path
) -> None:
    old = replace(spec_of(plugins), revisions=None)
    assert renewed(plugins, old) == spec_of(plugins)
    with Session(plugins, data_root=tmp_path, results=tmp_path / "r", device="cpu") as session:
        assert session.run(old).record.spec == spec_of(plugins)
        (outcome,) = session.run_many([old])
        assert not isinstance(outcome, Exception)
        assert outcome.record.spec == spec_of(plugins)


def test_a_part_that_is_not_installed_keeps_its_revision(plugins: Plugins) -> None:
    gone = replace(spec_of(plugins), method=Choice("gone"), revisions={"method": 5})
    assert renewed(plugins, gone).revisions == {"rules": RULES_REVISION, "method": 5}


def test_what_differs_is_said_with_both_revisions() -> None:
    new = replace(SPEC, revisions={"rules": 2, "dataset": 3})
    assert changed(SPEC, new) == ["data set: 1 before, 3 now", "selection rules: 1 before, 2 now"]
    assert changed(new, new) == []


def test_a_spec_without_revisions_has_the_id_of_before() -> None:
    assert "revisions" not in SPEC.id
    assert replace(SPEC, revisions={"method": 2}).id != SPEC.id


def test_running_the_spec_of_an_older_record_warns_and_makes_another_record(
    debiasbench: Callable[..., Result],
) -> None:
    debiasbench("run", "--method", "erm", "--dataset", "toy")
    (path,) = Path("results").glob("*.json")
    record = read(path)
    spec = replace(record.spec, revisions=None)
    old = Path(f"{spec.stem}.json")
    old.write_text(to_json(replace(record, spec=spec, id=spec.id)))
    done = debiasbench("run", "--spec", old, "--results", "again")
    assert done.exit_code == 0, done.stderr
    assert "selection rules: 1 before, 2 now" in done.stderr
    (made,) = Path("again").glob("*.json")
    assert read(made).id == record.id
