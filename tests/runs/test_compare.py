"""`compare` from Python: what has no record is run, and the frame has a row for each run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from debiasbench import Session, compare
from debiasbench.common.errors import OptionError, PluginError, UnknownNameError
from debiasbench.common.progress import Progress
from debiasbench.files.importing import import_data
from debiasbench.records.metrics import METRICS
from debiasbench.records.store import read
from debiasbench.specs.plugins import Plugins
from tests.conftest import ACME, ToyPlugin, offering
from tests.failing import Diverges, Raises
from tests.files.importing.birds import birds_in

STEPS = 10  # of an epoch on the toy task
FAST = {"train.epochs": 1}


class Counting(Progress):
    """Counts the steps that are trained."""

    def __init__(self) -> None:
        self.steps = 0

    def advance(self, count: int = 1) -> None:
        self.steps += count


@dataclass
class Place:
    """A session on the toy task, and the steps that it has trained since the last question."""

    session: Session
    results: Path
    watch: Counting

    def compare(self, methods: Any, **more: Any) -> Any:
        settings = {**FAST, **more.pop("settings", {})}
        words = {"dataset": "toy", "model": "mlp", "seeds": [0]} | more
        return compare(methods, settings=settings, session=self.session, **words)

    def steps(self) -> int:
        steps, self.watch.steps = self.watch.steps, 0
        return steps

    def records(self) -> list[Any]:
        return [read(path) for path in sorted(self.results.glob("*.json"))]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    extra = offering(diverges=Diverges, raises=Raises)
    plugins = Plugins([(ToyPlugin(), ACME), (extra, ACME)])
    results, watch = tmp_path / "results", Counting()
    with Session(
        plugins, results=results, data_root=tmp_path / "data", device="cpu", progress=watch
    ) as session:
        yield Place(session, results, watch)


def test_the_frame_has_a_row_for_each_run_and_the_records_hold_the_same(place: Place) -> None:
    frame = place.compare(["erm", "rest"], seeds=range(2))
    assert frame[["method", "seed"]].to_numpy().tolist() == [
        ["erm", 0],
        ["erm", 1],
        ["rest", 0],
        ["rest", 1],
    ]
    assert set(frame["rule"]) == {"val_unbiased"}  # of the toy task
    assert frame["failure"].isna().all()
    records = {record.id: record for record in place.records()}
    assert set(frame["id"]) == set(records)
    for row in frame.to_dict("records"):
        record = records[row["id"]]
        assert record.spec.training["epochs"] == 1
        result = record.outcomes["val_unbiased"].test
        for name in METRICS:
            assert row[name] == pytest.approx(result.metrics[name])
        assert record.cost is not None
        assert row["density"] == record.cost.density


def test_the_second_call_trains_nothing_and_returns_the_same(place: Place) -> None:
    first = place.compare(["erm", "rest"], seeds=range(2))
    assert place.steps() == 2 * 2 * STEPS
    times = {path: path.stat().st_mtime_ns for path in place.results.iterdir()}
    second = place.compare(["erm", "rest"], seeds=range(2))
    assert place.steps() == 0
    assert second.equals(first)
    assert {path: path.stat().st_mtime_ns for path in place.results.iterdir()} == times
    assert len(place.compare(["erm", "rest"], seeds=range(3))) == 6
    assert place.steps() == 2 * STEPS  # of the new seed


def test_several_values_of_an_option_are_compared(place: Place) -> None:
    frame = place.compare("rest", settings={"density": [0.1, 0.3]}, seeds=[4])
    options = frame["method.density"].tolist()
    assert options == [0.1, 0.3]
    assert frame["density"].tolist() == pytest.approx([0.1, 0.3], abs=0.01)


def test_an_option_of_one_method_does_not_touch_another(place: Place) -> None:
    alone = place.compare("upweight")
    assert place.steps() == STEPS
    frame = place.compare(["upweight", "rest"], settings={"rest.weight": [5, 10]})
    assert place.steps() == 2 * STEPS
    assert frame["method"].tolist() == ["upweight", "rest", "rest"]
    assert frame["id"][0] == alone["id"][0]
    assert frame["method.weight"][1:].tolist() == [5, 10]


@pytest.mark.parametrize(
    "values", [(0.1, 0.3), iter([0.1, 0.3]), dict.fromkeys([0.1, 0.3]).keys(), ["0.1", "0.3"]]
)
def test_values_may_be_any_iterable(place: Place, values: Any) -> None:
    frame = place.compare("rest", settings={"density": values})
    assert frame["method.density"].tolist() == [0.1, 0.3]


def test_an_option_that_is_a_list_is_a_list_of_lists(place: Place) -> None:
    frame = place.compare("erm", settings={"model.hidden": [[8], [4, 4]]})
    assert frame["model"].tolist() == ["mlp hidden=[8]", "mlp hidden=[4, 4]"]
    assert frame["model.hidden"].tolist() == [(8,), (4, 4)]


def test_values_that_mean_the_same_are_one_run(place: Place) -> None:
    frame = place.compare("rest", settings={"density": [0.1, "0.10", "1e-1"]}, seeds=[0, 0])
    assert len(frame) == 1
    assert place.steps() == STEPS


def test_a_sparsifier_is_named_with_its_options_as_on_the_command_line(place: Place) -> None:
    frame = place.compare("erm", sparse="rigl:density=0.2")
    (record,) = place.records()
    assert record.spec.sparse.options["density"] == 0.2
    assert frame["sparse"].tolist() == ["rigl"]
    with pytest.raises(OptionError, match=r"sparse.density is given twice"):
        place.compare("erm", sparse="rigl:density=0.2", settings={"sparse.density": [0.1]})


def test_another_rule_returns_its_outcome_of_the_same_runs(place: Place) -> None:
    place.compare("erm")
    place.steps()
    frame = place.compare("erm", select="last")
    assert place.steps() == 0
    assert frame["rule"].tolist() == ["last"]
    assert frame["epoch"].tolist() == [1]


def test_a_run_that_diverges_has_a_row_with_its_failure(place: Place) -> None:
    frame = place.compare(["diverges", "erm"])
    assert frame["failure"][0] == "NonFiniteLoss at step 2"
    assert frame["failure"].isna().tolist() == [False, True]
    assert frame["unbiased"].isna().tolist() == [True, False]
    alone = place.compare("diverges")
    assert alone["unbiased"].isna().all()
    assert alone["training_seconds"].isna().all()


def test_an_error_of_a_method_is_raised_and_finished_runs_are_kept(place: Place) -> None:
    with pytest.raises(PluginError, match=r"'raises' of acme 1.0 raised IndexError"):
        place.compare(["erm", "raises", "rest"])
    assert [record.spec.method.name for record in place.records()] == ["erm"]


def test_imported_data_are_found_by_their_short_name(place: Place, tmp_path: Path) -> None:
    done = import_data("birds", birds_in(tmp_path), tmp_path / "data")
    frame = place.compare("erm", dataset="birds")
    (record,) = place.records()
    assert record.spec.dataset.name == "imported:birds"
    assert record.spec.dataset.options["digest"] == done.digest
    assert len(frame) == 1


def test_a_batch_in_parts_that_fit_is_resolved_to_the_record_of_the_whole(place: Place) -> None:
    whole = place.compare("erm")
    place.steps()
    frame = place.compare("erm", settings={"train.micro_batch": "auto"})
    assert place.steps() == 0
    assert frame["id"].tolist() == whole["id"].tolist()


@pytest.mark.parametrize(
    ("words", "error", "complaint"),
    [
        ({"methods": []}, OptionError, "needs at least one method and one seed"),
        ({"seeds": []}, OptionError, "needs at least one method and one seed"),
        ({"seeds": 3}, OptionError, r"seeds=3: give several seeds, such as range\(3\)"),
        ({"seeds": [-1]}, OptionError, "Seed -1 is not a whole number from 0"),
        ({"seeds": ["0"]}, OptionError, "Seed '0' is not a whole number from 0"),
        ({"seeds": "0-2"}, OptionError, "is not a whole number from 0"),
        ({"seeds": [True]}, OptionError, "Seed True is not a whole number from 0"),
        ({"methods": ["erm", "rset"]}, UnknownNameError, "Did you mean 'rest'"),
        ({"methods": ["erm", "erm"]}, OptionError, "A method is named twice"),
        ({"dataset": "tooy"}, UnknownNameError, "Did you mean 'toy'"),
        ({"model": "mpl"}, UnknownNameError, "Did you mean 'mlp'"),
        ({"sparse": "rigel"}, UnknownNameError, "Did you mean 'rigl'"),
        ({"select": "val_best"}, UnknownNameError, "Unknown selection rule 'val_best'"),
        ({"settings": {"erm.density": 1}}, OptionError, "method erm: no option 'density'"),
        ({"settings": {"train.epoch": 1}}, OptionError, "Did you mean 'epochs'"),
        ({"settings": {"train.lr": []}}, OptionError, "train.lr has no value"),
        ({"settings": {"train.lr": object}}, OptionError, "train.lr=<class 'object'>: must be a"),
    ],
)
def test_a_mistake_is_an_error_before_anything_is_trained(
    place: Place, words: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        place.compare(**{"methods": "erm", **words})
    assert place.steps() == 0


def test_a_session_is_given_or_made_of_its_arguments_but_not_both(place: Place) -> None:
    with pytest.raises(OptionError, match="results cannot be combined with session"):
        place.compare("erm", results="elsewhere")
    assert place.steps() == 0
    with pytest.raises(OptionError, match="unexpected keyword argument 'batch_size'"):
        compare("erm", batch_size=3)


def test_without_a_session_one_is_made(tmp_path: Path, empty_folder: None) -> None:
    frame = compare("erm", seeds=[1], settings=FAST, results="here", device="cpu")
    assert frame["dataset"][0].startswith("digits")
    (path,) = Path("here").glob("*.json")
    assert read(path).spec.seed == 1
