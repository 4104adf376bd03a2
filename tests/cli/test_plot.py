"""`debiasbench leaderboard --plot`: figures in files, and why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.common.errors import OptionError
from debiasbench.leaderboard.figures.make import make
from debiasbench.records.record import to_json
from tests.leaderboard.test_figures import CURVE
from tests.leaderboard.test_leaderboard import run

Cli = Callable[..., Result]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    for record in CURVE:
        (folder / f"{record.spec.stem}.json").write_text(to_json(record))
    return folder


def test_leaderboard_plots_into_a_file_and_prints_a_caption(
    results: Path, tmp_path: Path, debiasbench: Cli
) -> None:
    pytest.importorskip("matplotlib")
    for kind, name in (("density", "a.pdf"), ("pareto", "b.svg"), ("ranks", "c.PNG")):
        out = tmp_path / name
        result = debiasbench("leaderboard", results, "--plot", kind, "--out", out)
        assert result.exit_code == 0, result.output
        assert out.stat().st_size > 1000
        assert "toy" in result.output
    out = tmp_path / "d.png"
    words = ("leaderboard", results, "--plot", "groups", "--out", out)
    result = debiasbench(*words, "--method", "full")
    assert result.exit_code == 0, result.output
    result = debiasbench(*words)
    assert result.exit_code == 2
    assert "Choose it with --method" in result.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--plot", "density"], "--out FILE"),
        (["--plot", "density", "--out", "x.txt"], ".pdf, .svg, .png"),
        (["--plot", "density", "--out", "x.pdf", "--sort", "seeds"], "--sort"),
        (["--plot", "density", "--out", "x.pdf", "--cost", "seconds"], "it is for pareto"),
        (["--plot", "ranks", "--out", "x.pdf", "--method", "full"], "all rows are compared"),
        (["--plot", "pareto", "--out", "x.pdf", "--cost", "second"], "Did you mean 'seconds'"),
        (["--plot", "groups", "--out", "x.pdf", "--method", "ful"], "Did you mean 'full'"),
        (["--plot", "density", "--out", "x.pdf", "--method", "full"], "density below 1"),
        (["--cost", "seconds"], "add --plot pareto"),
    ],
)
def test_words_that_give_no_figure_are_refused(
    words: list[str], says: str, results: Path, debiasbench: Cli
) -> None:
    result = debiasbench("leaderboard", results, *words)
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_figure_of_several_tables_says_how_to_choose(results: Path) -> None:
    other = run("erm", 0)
    spec = replace(other.spec, dataset=replace(other.spec.dataset, name="other"))
    other = replace(other, spec=spec, id=spec.id)
    (results / f"{spec.stem}.json").write_text(to_json(other))
    with pytest.raises(OptionError, match="Choose one with --dataset"):
        make([results], "density")
    figure, problems = make([results], "density", dataset="toy")
    assert "toy" in figure.title
    assert problems == []
