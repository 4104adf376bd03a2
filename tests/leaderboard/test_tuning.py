"""Default, tuned and hand-set rows: who is which, and that the three share no ranking."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from debiasbench import Method, Session, log, option
from debiasbench.leaderboard.across import across
from debiasbench.leaderboard.board import Board, boards
from debiasbench.leaderboard.gather import gather
from debiasbench.leaderboard.pivot import grid as pivot_grid
from debiasbench.leaderboard.pivot import pivots
from debiasbench.leaderboard.protocol import protocols
from debiasbench.leaderboard.protocol_text import grids
from debiasbench.leaderboard.render import grid, render
from debiasbench.leaderboard.row import BY_HAND, DEFAULT, Row
from debiasbench.leaderboard.table import table
from debiasbench.leaderboard.tuning import tuning_name
from debiasbench.records import search as searches
from debiasbench.records import trial as trials
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests.conftest import ACME, Toy, ToyPlugin, offering
from tests.searching import searched

EPOCHS = {"epochs": 2}


@dataclass(frozen=True)
class Scaled(Method):
    """ERM with an option that changes its learning rate."""

    factor: float = option(0.02, "of the learning rate", gt=0, search=log(0.001, 10))

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), lr=self.factor * lab.training.lr, name="train")


@dataclass(frozen=True)
class Settled(Scaled):
    """A method of which everything but the default hardly learns."""

    factor: float = option(1.0, "of the learning rate", gt=0, search=log(1e-9, 1e-8))


@dataclass(frozen=True)
class Picky(Method):
    """ERM that does not learn with the learning rate that the data set recommends."""

    def fit(self, lab: Any) -> Any:
        lr = lab.training.lr
        return lab.train(lab.model(), lr=1e-9 if lr == Toy.training["lr"] else lr, name="train")


def made() -> Plugins:
    methods = offering(scaled=Scaled, settled=Settled, picky=Picky)
    return Plugins([(ToyPlugin(), ACME), (methods, ACME)])


def run(folder: Path, method: str, seeds: range, training: Any = None, **options: Any) -> None:
    plugins = made()
    with Session(plugins, results=folder, device="cpu") as session:
        for seed in seeds:
            session.run(
                make_spec(
                    plugins,
                    method=method,
                    dataset="toy",
                    seed=seed,
                    training={**EPOCHS, **(training or {})},
                    method_options=options,
                )
            )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with rows of all three kinds, which stays as it is."""
    folder = tmp_path_factory.mktemp("whole")
    searched(made(), folder, "scaled", trials=4, seeds=range(3))
    searched(made(), folder, "upweight", trials=4, seeds=range(3))
    run(folder, "scaled", range(3))
    run(folder, "erm", range(3))
    run(folder, "scaled", range(3), factor=0.3)
    run(folder, "scaled", range(3), factor=0.4)
    return folder


@pytest.fixture
def results(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "results")


def board_of(results: Path, rule: str | None = None) -> Board:
    gathered = gather([results], rule)
    (one,) = boards(gathered.records, select=rule, **gathered.evidence)
    return one


def kinds(board: Board) -> dict[str, str]:
    return {row.name: tuning_name(row.tuning) for row in board.rows}


def test_rows_say_how_their_settings_were_found(results: Path) -> None:
    assert kinds(board_of(results)) == {
        "erm": "default",
        "upweight": "default",  # its search found the defaults to be the best
        "scaled (factor=0.02)": "default",
        "scaled (tuned, n=4)": "tuned (n=4)",
        "upweight (tuned, n=4)": "tuned (n=4)",
        "scaled (factor=0.3)": "by hand",
        "scaled (factor=0.4)": "by hand",
    }


def test_the_three_share_no_ranking_no_marks_and_no_section(results: Path) -> None:
    board = board_of(results)
    sections: dict[str, list[Row]] = {}
    table_ = grid(board, "markdown")
    for title, row in zip(table_.sections, board.rows, strict=True):
        sections.setdefault(title, []).append(row)
    blind = "no bias labels in training, group labels of validation for selection"
    assert {title: [row.name for row in rows] for title, rows in sections.items()}.keys() >= {
        f"{blind}, default",
        f"{blind}, tuned (n=4)",
        f"{blind}, by hand",
    }
    for rows in sections.values():
        assert len({row.tuning for row in rows}) == 1
        ranked = [row for row in rows if row.rank]
        assert all(row.rank and row.rank[2] == len(ranked) for row in ranked)
    by_hand = [row for row in board.rows if row.tuning == BY_HAND]
    assert [row.rank and row.rank[2] for row in by_hand] == [2, 2]


def test_a_table_of_defaults_shows_no_label(tmp_path: Path) -> None:
    run(tmp_path, "erm", range(2))
    run(tmp_path, "upweight", range(2))
    board = board_of(tmp_path)
    assert {row.tuning for row in board.rows} == {DEFAULT}
    text = render([board], "markdown")
    assert "default" not in text.lower()
    assert "search" not in text


def test_training_that_all_rows_share_is_no_choice_of_a_row(tmp_path: Path) -> None:
    run(tmp_path, "erm", range(2), {"lr": 0.2})
    run(tmp_path, "upweight", range(2), {"lr": 0.2})
    assert set(kinds(board_of(tmp_path)).values()) == {"default"}
    run(tmp_path, "rwy", range(2))
    assert kinds(board_of(tmp_path)) == {
        "rwy (train.lr=0.05)": "default",
        "erm (train.lr=0.2)": "by hand",
        "upweight (train.lr=0.2)": "by hand",
    }


def test_settings_of_one_method_alone_are_a_grid_by_hand(tmp_path: Path) -> None:
    for factor in (0.02, 0.3, 0.4):  # the default among them
        run(tmp_path, "scaled", range(2), factor=factor)
    board = board_of(tmp_path)
    assert {row.tuning for row in board.rows} == {BY_HAND}
    assert {row.rank and row.rank[2] for row in board.rows} == {3}


def test_a_table_without_a_tuned_row_has_no_column_of_searches(results: Path) -> None:
    headings = grid(board_of(results), "markdown").header
    assert headings[-2:] == ["TFLOPs to search", "seconds to search"]
    shutil.rmtree(results / "search")
    assert "search" not in " ".join(grid(board_of(results), "markdown").header)


def test_the_cost_of_a_search_is_that_of_all_trials(results: Path) -> None:
    (row,) = [row for row in board_of(results).rows if row.name == "scaled (tuned, n=4)"]
    (file,) = (results / "search").glob("toy-scaled-*.search.json")
    search = searches.read(file)
    assert row.costs["search_flops"] == search.flops
    assert row.costs["search_seconds"] == search.seconds
    assert search.flops == pytest.approx(4 * row.costs["training_flops"])


def test_the_file_of_a_search_has_no_validation_accuracy_that_could_be_printed(
    results: Path,
) -> None:
    for file in (results / "search").glob("*.search.json"):
        numbers = [v for v in json.loads(file.read_text()).values() if isinstance(v, float)]
        assert sorted(numbers) == sorted([searches.read(file).seconds, searches.read(file).flops])


@pytest.mark.parametrize("form", ["csv", "json"])
def test_data_files_say_how_settings_were_found(form: str, results: Path) -> None:
    text, _ = table([results], form)
    rows: list[Any] = (
        list(csv.DictReader(io.StringIO(text))) if form == "csv" else json.loads(text)[0]["rows"]
    )
    found = {(row["method"], row["tuning"]) for row in rows}
    assert {("erm", "default"), ("scaled", "tuned (n=4)"), ("scaled", "by hand")} <= found
    (tuned,) = [r for r in rows if (r["method"], r["tuning"]) == ("scaled", "tuned (n=4)")]
    assert float(tuned["search_flops"]) > 0
    (erm,) = [r for r in rows if r["method"] == "erm"]
    assert not erm["search_flops"]


def test_a_note_has_the_values_and_how_they_were_chosen(results: Path) -> None:
    text = render([board_of(results)], "markdown")
    (line,) = [one for one in text.splitlines() if one.startswith("- scaled (tuned, n=4), trial")]
    assert "of 4 by unbiased accuracy on validation under val" in line
    assert "seed 1000: factor=" in line
    assert "train.lr=" in line


def test_a_winner_is_tuned_only_under_the_rule_that_chose_it(results: Path) -> None:
    found = set(kinds(board_of(results, "last")).values())
    assert found <= {"default", "by hand"}


def change(results: Path, method: str, edit: Callable[[Any], Any]) -> None:
    (file,) = (results / "search").glob(f"toy-{method}-*.search.json")
    search = edit(searches.read(file))
    file.unlink()
    searches.write(results, replace(search, id=search.asked))


def test_a_search_that_contradicts_itself_tunes_nothing_and_is_named(results: Path) -> None:
    change(results, "scaled", lambda s: replace(s, winner=s.trials[(s.won + 1) % 4]))
    text, problems = table([results], "markdown")
    assert "scaled (tuned" not in text
    assert len(problems) == 1
    assert "contradicts itself: the winner is trial" in problems[0]


def test_a_search_by_another_sampler_counts_as_by_hand(results: Path) -> None:
    change(results, "scaled", lambda s: replace(s, sampler="optuna:tpe"))
    found = kinds(board_of(results))
    assert not any(name.startswith("scaled (tuned") for name in found)
    assert found["upweight (tuned, n=4)"] == "tuned (n=4)"


def test_a_row_with_the_seed_of_the_trials_is_not_tuned(results: Path) -> None:
    (file,) = (results / "search").glob("toy-scaled-*.search.json")
    search = searches.read(file)
    winner = trials.read(file.with_name(search.trial_file(search.winner))).spec
    with Session(made(), results=results, device="cpu") as session:
        session.run(winner)
    assert not any(name.startswith("scaled (tuned") for name in kinds(board_of(results)))


def test_a_search_with_an_option_set_by_hand_counts_as_by_hand(tmp_path: Path) -> None:
    searched(made(), tmp_path, "scaled", trials=3, **{"method.factor": 0.5})
    assert set(kinds(board_of(tmp_path)).values()) == {"by hand"}


def test_a_search_that_finds_the_defaults_is_two_rows(tmp_path: Path) -> None:
    _, search = searched(made(), tmp_path, "settled", trials=3)
    assert search.won == 0
    board = board_of(tmp_path)
    assert kinds(board) == {"settled": "default", "settled (tuned, n=3)": "tuned (n=3)"}
    assert board.rows[0].records == board.rows[1].records


def test_a_search_that_finds_other_training_settings_is_no_default(tmp_path: Path) -> None:
    searched(made(), tmp_path, "picky", trials=4, seeds=range(2))
    assert kinds(board_of(tmp_path)) == {"picky (tuned, n=4)": "tuned (n=4)"}


def test_different_budgets_share_no_ranking(results: Path) -> None:
    searched(made(), results, "erm", trials=2, seeds=range(3))
    board = board_of(results)
    sections = {row.name: row.level for row in board.rows}
    assert sections["erm (tuned, n=2)"] != sections["scaled (tuned, n=4)"]


def test_a_winner_of_two_budgets_is_in_the_section_of_each(tmp_path: Path) -> None:
    for trials_ in (3, 4):
        searched(made(), tmp_path, "settled", trials=trials_)
    assert kinds(board_of(tmp_path)) == {
        "settled": "default",
        "settled (tuned, n=3)": "tuned (n=3)",
        "settled (tuned, n=4)": "tuned (n=4)",
    }


# --- other tables --------------------------------------------------------------------------------


def test_rules_are_compared_within_default_tuned_and_by_hand(results: Path) -> None:
    gathered = gather([results], whole=True)
    (one,) = protocols(gathered.records, **gathered.evidence)
    assert {line.level[2] for line in one.lines} == {DEFAULT, 4, BY_HAND}
    assert all(of.level[2] == of.less[2] for of in one.premiums)
    titles = {title for each in grids(one) for title in each.sections}
    assert any(title.endswith(", tuned (n=4)") for title in titles)


def test_data_sets_are_compared_within_default_tuned_and_by_hand(
    results: Path, tmp_path: Path
) -> None:
    gathered = gather([results])
    other = [
        replace(
            record,
            id=record.id[::-1],
            spec=replace(record.spec, dataset=replace(record.spec.dataset, name="other")),
        )
        for record in gathered.records
        if not gathered.tuned.of.get("val_unbiased", {}).get(record.id)
    ]
    evidence = {**gathered.evidence, "correct": {}}
    found = across([*gathered.records, *other], **evidence)  # type: ignore[arg-type]
    levels = {(line.match.method, line.level[2]) for line in found.lines}
    assert {("scaled", DEFAULT), ("scaled", 4), ("scaled", BY_HAND)} <= levels


def test_a_pivot_by_a_tuned_option_is_not_split_by_it(tmp_path: Path) -> None:
    for factor in (0.02, 0.3):
        run(tmp_path, "scaled", range(2), factor=factor)
    gathered = gather([tmp_path])
    (one,) = pivots(gathered.records, "factor", **gathered.evidence)
    assert len(one.lines) == 1
    assert len(one.lines[0].present) == 2
    assert "by hand" not in str(pivot_grid(one).sections)


def test_a_pivot_keeps_tuned_and_default_lines_apart(results: Path) -> None:
    gathered = gather([results])
    (one,) = pivots(gathered.records, "dataset.ratio", **gathered.evidence)
    assert {line.row.tuning for line in one.lines} == {DEFAULT, 4, BY_HAND}
