"""`debiasbench leaderboard`: formats, bad files, and pages that are kept true."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from debiasbench.leaderboard import gather
from tests.cli.calls import RUN, only

Cli = Callable[..., Result]


def test_leaderboard_names_bad_files_and_strict_ends_with_an_error(debiasbench: Cli) -> None:
    debiasbench(*RUN)
    Path("results/package.json").write_text('{"name": "left-pad"}')
    result = debiasbench("leaderboard")
    assert result.exit_code == 0
    assert result.stderr == (
        "Warning: results/package.json is not a debiasbench record (it has no schema or no spec)\n"
    )
    assert "| erm" in result.stdout
    strict = debiasbench("leaderboard", "--strict")
    assert strict.exit_code == 9
    assert strict.stderr.splitlines()[-1] == "Error: 1 bad record: see above"
    assert "| erm" in strict.stdout


def test_leaderboard_takes_data_set_metric_rule_and_baseline(debiasbench: Cli) -> None:
    debiasbench(*RUN)
    debiasbench(*RUN, "--seed", 1)
    debiasbench(*RUN[:2], "lff", *RUN[3:])
    debiasbench("run", "--method", "erm", "--model", "mlp", "--epochs", 1)
    both = debiasbench("leaderboard").stdout
    assert both.count("### ") == 2
    words = ("--dataset", "toy", "--metric", "conflict", "--select", "last", "--baseline", "erm")
    table = debiasbench("leaderboard", *words).stdout
    assert table.startswith("### toy")
    assert table.count("### ") == 1
    header = [cell.strip() for cell in table.splitlines()[2].split("|")[1:6]]
    assert header == ["method", "conflict %", "95 % interval", "seeds", "minus erm, points"]
    assert "over seeds, after the last epoch." in table
    assert "Did you mean 'toy'" in only(debiasbench("leaderboard", "--dataset", "tooy"), 2)


@pytest.mark.parametrize("form", ["markdown", "latex", "csv", "json", "html-table"])
def test_leaderboard_writes_every_format_to_a_file(debiasbench: Cli, form: str) -> None:
    debiasbench(*RUN)
    printed = debiasbench("leaderboard", "--format", form).stdout
    assert debiasbench("leaderboard", "--format", form, "--out", "table").stdout == ""
    assert Path("table").read_text() == printed
    assert "erm" in printed


@pytest.mark.parametrize("words", [("--page", "out.html"), ("--site", "out")])
def test_a_page_and_a_site_may_have_some_methods_only(
    words: tuple[str, ...], debiasbench: Cli
) -> None:
    debiasbench(*RUN)
    debiasbench(*RUN[:2], "lff", *RUN[3:])
    result = debiasbench("leaderboard", *words, "--method", "erm")
    assert result.exit_code == 0, result.output
    assert "from 1 record" in result.output
    unknown = debiasbench("leaderboard", *words, "--method", "emr")
    assert "Unknown method with records 'emr'" in only(unknown, 2)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--verify", "--format", "json"), "--verify cannot be combined with --format"),
        (("--verify", "--dataset", "toy"), "--verify cannot be combined with --dataset"),
        (("--update", "--out", "x.md"), "--update cannot be combined with --out"),
        (("--check", "--update"), "--check cannot be combined with --update"),
        (("--check", "--no-index"), "--check cannot be combined with --no-index"),
        (("--columns", "method, difference"), "The column difference needs --baseline"),
    ],
)
def test_an_option_without_meaning_is_refused(
    words: tuple[str, ...], complaint: str, debiasbench: Cli
) -> None:
    assert complaint in only(debiasbench("leaderboard", *words), 2)


@pytest.mark.parametrize("words", [("--plot", "pareto", "--out", "x.svg"), ("--site", "site")])
def test_without_index_none_is_read(
    words: tuple[str, ...], debiasbench: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    debiasbench(*RUN)
    debiasbench(*RUN, "--seed", 1)
    monkeypatch.setattr("debiasbench.leaderboard.site.LARGE", 0)
    opened: list[object] = []
    real = gather.Index.__init__

    def noted(self: Any, *args: Any, **kwargs: Any) -> None:
        opened.append(args)
        real(self, *args, **kwargs)

    monkeypatch.setattr(gather.Index, "__init__", noted)
    assert debiasbench("leaderboard", *words, "--no-index").exit_code == 0
    assert opened == []
    assert debiasbench("leaderboard", *words).exit_code == 0
    assert opened


def test_leaderboard_check_fails_until_the_page_is_updated(debiasbench: Cli) -> None:
    debiasbench(*RUN)
    page = Path("page.md")
    page.write_text("<!-- debiasbench leaderboard results -->\n<!-- /debiasbench -->\n")
    assert "run `debiasbench leaderboard --update page.md`" in only(
        debiasbench("leaderboard", "--check", page), 9
    )
    assert debiasbench("leaderboard", "--update", page).stdout == "page.md is up to date\n"
    assert debiasbench("leaderboard", "--check", page).stdout == "page.md matches its records\n"
    page.write_text(page.read_text().replace("| erm", "| ern"))
    assert debiasbench("leaderboard", "--check", page).exit_code == 9


def test_a_page_can_hold_the_panel_of_groups(debiasbench: Cli) -> None:
    debiasbench(*RUN)
    assert "No record here holds anything" in only(
        debiasbench("leaderboard", "--panel", "groups"), 9
    )
    debiasbench(*RUN[:2], "jtt", *RUN[3:])
    assert "cannot be combined with --metric" in only(
        debiasbench("leaderboard", "--panel", "groups", "--metric", "average"), 2
    )
    page = Path("page.md")
    page.write_text(
        "<!-- debiasbench leaderboard results --panel groups --sort conflict_recall -->\n"
        "<!-- /debiasbench -->\n"
    )
    debiasbench("leaderboard", "--update", page)
    printed = debiasbench("leaderboard", "--panel", "groups", "--sort", "conflict_recall").stdout
    assert printed in page.read_text()
    assert "| jtt" in printed
    assert "| erm" not in printed
    assert debiasbench("leaderboard", "--check", page).stdout == "page.md matches its records\n"
    assert debiasbench("verify", "results").exit_code == 0
