"""The command line by its exact words: output, errors on stderr, exit codes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console

from debiasbench import Method, hookimpl
from debiasbench.cli import EPILOG
from debiasbench.cli.progress import Bar
from debiasbench.common import errors
from debiasbench.records.record import from_json
from debiasbench.records.store import Store, read
from tests.conftest import Peek, PeekDeclared, offering
from tests.datasets.mnist import write_mnist
from tests.runs.test_run import Diverges, Raises

Cli = Callable[..., Result]

RUN = ("run", "--method", "erm", "--dataset", "toy", "--device", "cpu")


def only(result: Result, code: int) -> str:
    """The one line on stderr of a call that ended with `code`."""
    assert result.exit_code == code, (result.output, result.exception)
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    return lines[0].removeprefix("Error: ")


def records(folder: str = "results") -> list[Path]:
    return sorted(Path(folder).glob("*.json"))


def test_a_run_ends_in_a_table_and_the_place_of_the_record(debiasbench: Cli) -> None:
    result = debiasbench(*RUN)
    assert result.exit_code == 0, result.output
    (path,) = records()
    lines = result.stdout.splitlines()
    assert lines[0] == "erm on toy with mlp, seed 0"
    assert lines[2] == ("Test accuracy per group (samples), at the epoch selected by val_unbiased:")
    assert lines[4].split() == ["class", "red", "%", "blue", "%"]
    assert [line.split()[0] for line in lines[6:8]] == ["left", "right"]
    rules = [line.split()[0] for line in lines if line.startswith(("last", "val_"))]
    assert rules == ["last", "val_average", "val_unbiased", "val_worst_group", "val_conflict"]
    assert lines[-1] == f"Record: {path}"
    assert result.stderr == ""


def test_the_table_shows_what_the_record_holds(debiasbench: Cli) -> None:
    result = debiasbench(*RUN)
    record = from_json(records()[0].read_text())
    test = record.outcomes["val_unbiased"].test
    counts = record.task.group_counts["test"]
    shown = [f"{100 * h / n:.1f} ({n})" for h, n in zip(test.hits, counts, strict=True)]
    left, right = (line for line in result.stdout.splitlines() if line.startswith(("left", "rig")))
    assert left.split() == ["left", *shown[0].split(), "*", *shown[1].split()]
    assert right.split() == ["right", *shown[2].split(), *shown[3].split(), "*"]
    assert f"{100 * test.metrics['conflict']:.1f}" in result.stdout


def test_many_biases_are_summed_up_as_aligned_and_conflicting(debiasbench: Cli) -> None:
    result = debiasbench("run", "--method", "erm", "--epochs", 1, "--model", "mlp")
    lines = result.stdout.splitlines()
    assert lines[4].split() == ["class", "aligned", "%", "conflicting", "%"]
    assert all(line.endswith("(45)") and "(5)" in line for line in lines[6:16])


def test_a_finished_run_is_found_without_importing_torch(tmp_path: Path) -> None:
    words = ["run", "--method", "rest", "--epochs", "1", "--set", "density=0.5", "--quiet"]
    code = (
        "import sys\nfrom debiasbench.cli import main\n"
        f"try:\n    main({words})\nexcept SystemExit:\n    print('torch' in sys.modules)"
    )
    for imported in ("True", "False"):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == imported


def test_the_second_run_says_that_it_is_done_and_changes_nothing(debiasbench: Cli) -> None:
    first = debiasbench(*RUN)
    before = records()[0].read_bytes()
    second = debiasbench(*RUN)
    assert second.exit_code == 0
    assert "Already done on " in second.stdout
    assert "--overwrite always runs it again" in second.stdout
    assert "Already done" not in first.stdout
    assert records()[0].read_bytes() == before


def test_another_seed_makes_another_record(debiasbench: Cli) -> None:
    debiasbench(*RUN)
    debiasbench(*RUN, "--seed", 1)
    assert len(records()) == 2


def test_set_reaches_method_data_model_and_training(debiasbench: Cli) -> None:
    result = debiasbench(
        "run", "--method", "rest", "--dataset", "toy", "--epochs", 1, "--set", "density=0.5",
        "--set", "dataset.ratio=0.2", "--set", "model.hidden=[8]", "--set", "train.lr=0.01",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    spec = json.loads(records()[0].read_text())["spec"]
    assert spec["method"]["options"]["density"] == 0.5
    assert spec["dataset"]["options"]["ratio"] == 0.2
    assert spec["model"]["options"]["hidden"] == [8]
    assert (spec["training"]["lr"], spec["training"]["epochs"]) == (0.01, 1)


def test_a_record_can_be_run_again_from_its_file(debiasbench: Cli) -> None:
    debiasbench(*RUN, "--seed", 3)
    (path,) = records()
    result = debiasbench("run", "--spec", path, "--results", "elsewhere")
    assert result.exit_code == 0, result.output
    assert [p.name for p in records("elsewhere")] == [path.name]
    first, again = (from_json(p.read_text()) for p in (path, *records("elsewhere")))
    assert first.outcomes["last"].test == again.outcomes["last"].test


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("run", "--method", "rset", "--dataset", "toy"), 2, "Did you mean 'rest'?"),
        (("run", "--method", "erm", "--dataset", "tooy"), 2, "Did you mean 'toy'?"),
        ((*RUN, "--model", "mpl"), 2, "Did you mean 'mlp'?"),
        ((*RUN, "--set", "x=1"), 2, "method erm: no option 'x'"),
        ((*RUN, "--set", "train.lr=fast"), 2, "lr='fast': input should be a valid number"),
        ((*RUN, "--set", "dataset.ratio=1.5"), 2, "ratio='1.5': input should be less than"),
        ((*RUN, "--device", "nonsense"), 2, "--device auto for an available device"),
        ((*RUN[:-2], "--results", "file/results"), 7, "Choose a folder with --results"),
        (("run", "--method", "erm", "--dataset", "cmnist"), 4, "--data-root or DEBIASBENCH_DATA"),
        (("show", "upwieght"), 2, "Did you mean 'upweight'?"),
        ((*RUN, "--sparse", "rigel"), 2, "Unknown sparsifier 'rigel'. Did you mean 'rigl'?"),
        ((*RUN, "--sparse", "rigl:density=2"), 2, "density='2': input should be less than"),
        ((*RUN, "--sparse", "rigl:every=often"), 2, "sparsifier rigl: every='often'"),
        ((*RUN, "--sparse", "rigl:density=1e-6"), 2, "smallest feasible density"),
        ((*RUN, "--sparse", "set:distribution=erq"), 2, "Unknown distribution 'erq'"),
        (("leaderboard", "nowhere"), 9, "No results at nowhere"),
        (("leaderboard", "empty"), 9, "There is no record to compare"),
        (("leaderboard", "--check"), 9, "leaderboard/README.md cannot be read"),
    ],
)
def test_each_mistake_is_one_line_on_stderr_and_its_exit_code(
    words: tuple[str, ...], code: int, complaint: str, debiasbench: Cli
) -> None:
    Path("file").write_text("")
    Path("empty").mkdir()
    assert complaint in only(debiasbench(*words), code)
    assert records() == []


def test_a_spec_that_another_process_is_running_ends_with_its_exit_code(debiasbench: Cli) -> None:
    debiasbench(*RUN)
    (path,) = records()
    spec = from_json(path.read_text()).spec
    path.unlink()
    with Store(Path("results")).claim(spec):
        assert "is being run by another process" in only(debiasbench(*RUN), 8)


def test_the_help_lists_the_exit_code_of_every_error() -> None:
    listed = {int(line.split()[0]) for line in EPILOG.splitlines() if line.strip()[:1].isdigit()}
    kinds = [e for e in vars(errors).values() if isinstance(e, type)]
    codes = {e.exit_code for e in kinds if issubclass(e, errors.DebiasbenchError)}
    assert listed == codes | {0, 130}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("run",), "Missing option '--method', for example --method rest"),
        ((*RUN, "--set", "lr"), "write NAME=VALUE"),
        ((*RUN, "--set", "optimizer.lr=1"), "dataset.OPTION, model.OPTION, train.OPTION"),
        ((*RUN, "--seed", "-1"), "-1 is not in the range"),
        ((*RUN, "--spec", "x.json"), "cannot be combined with --method, --set"),
        (("list", "method"), "'method' is not one of"),
    ],
)
def test_words_that_do_not_fit_the_command_are_usage_errors(
    words: tuple[str, ...], complaint: str, debiasbench: Cli
) -> None:
    result = debiasbench(*words)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_a_truncated_data_file_is_named(debiasbench: Cli, tmp_path: Path) -> None:
    file = write_mnist(tmp_path / "data") / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:5000])
    line = only(debiasbench("run", "--method", "erm", "--dataset", "cmnist"), 4)
    assert "train-images-idx3-ubyte" in line
    assert "download them again" in line


def test_an_undeclared_label_ends_with_its_own_exit_code(debiasbench: Cli) -> None:
    words = ("run", "--method", "peek", "--dataset", "toy")
    line = only(debiasbench(*words, extra=(offering(peek=Peek),)), 5)
    assert "method 'peek' of acme 1.0: The method reads batch.group without declaring it" in line
    assert 'Supervision(train="groups")' in line
    assert debiasbench(*words, extra=(offering(peek=PeekDeclared),)).exit_code == 0


def test_a_loss_that_becomes_nan_is_recorded_and_ends_with_its_exit_code(debiasbench: Cli) -> None:
    words = ("run", "--method", "diverges", "--dataset", "toy")
    result = debiasbench(*words, extra=(offering(diverges=Diverges),))
    line = only(result, 6)
    assert "The loss of stage 'second' became NaN or infinite at step 2 (last finite loss " in line
    (path,) = records()
    assert f"Record: {path}" in result.stdout
    assert json.loads(path.read_text())["status"] == "failed"


def test_a_bug_in_a_plugin_names_the_plugin_and_debug_shows_the_traceback(
    debiasbench: Cli,
) -> None:
    words = ("run", "--method", "raises", "--dataset", "toy")
    extra = (offering(raises=Raises),)
    assert "method 'raises' of acme 1.0 raised IndexError" in only(
        debiasbench(*words, extra=extra), 3
    )
    result = debiasbench(*words, "--debug", extra=extra)
    assert result.exit_code != 0
    assert isinstance(result.exception.__cause__, IndexError)  # type: ignore[union-attr]


@pytest.fixture
def run_raises(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let running any spec raise an error."""

    def replace_run(error: BaseException) -> None:
        def broken(*_args: object, **_more: object) -> None:
            raise error

        monkeypatch.setattr("debiasbench.runs.session.Session.run", broken)

    return replace_run


def test_an_unforeseen_error_is_one_line_too(
    debiasbench: Cli, run_raises: Callable[[BaseException], None]
) -> None:
    run_raises(RuntimeError("something\nbroke"))
    line = only(debiasbench(*RUN), 1)
    assert line == "RuntimeError: something broke (--debug shows the traceback)"


def test_an_interrupt_records_nothing_and_says_so(
    debiasbench: Cli, run_raises: Callable[[BaseException], None]
) -> None:
    run_raises(KeyboardInterrupt())
    result = debiasbench(*RUN)
    assert (result.exit_code, result.stderr) == (130, "Interrupted: nothing was stored\n")


def test_a_broken_plugin_is_a_warning_and_the_rest_works(debiasbench: Cli) -> None:
    class Broken:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            raise ImportError("no module named acme_core")

    result = debiasbench("list", "methods", extra=(Broken(),))
    assert result.exit_code == 0
    assert result.stderr == (
        "Warning: plugin 'acme 1.0' of acme 1.0 did not load: "
        "ImportError: no module named acme_core\n"
    )
    assert "rest" in result.stdout


@dataclass(frozen=True)
class Documented(Method):
    """A method of acme."""

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), name="train")


def test_list_names_everything_and_where_it_comes_from(debiasbench: Cli) -> None:
    result = debiasbench("list", extra=(offering(mine=Documented),))
    lines = result.stdout.splitlines()
    headings = [line.split()[0] for line in lines if line.split()[1:] == ["from"]]
    assert headings == ["datasets", "models", "methods", "sparsifiers"]
    mine = next(line for line in lines if line.startswith("mine"))
    assert mine.split("  ")[-1].strip() == "A method of acme."
    assert "acme 1.0" in mine
    only_models = debiasbench("list", "models").stdout
    assert "timm:NAME" in only_models
    assert "groupdro" not in only_models


def test_show_lists_options_citation_and_supervision(debiasbench: Cli) -> None:
    shown = debiasbench("show", "rest").stdout
    assert "Supervision: train=conflict, val=none" in shown
    assert "Cite: Zhao, Yin, Liu, Fang, Pechenizkiy." in shown
    density = next(line for line in shown.splitlines() if line.startswith("density"))
    assert density.split(maxsplit=3) == [
        "density", "float", "0.05",
        "> 0, <= 1   fraction of convolution and linear weights kept",
    ]  # fmt: skip


def test_show_knows_data_sets_models_and_training(debiasbench: Cli) -> None:
    assert "Licence: CC BY 4.0" in debiasbench("show", "digits").stdout
    assert "hidden" in debiasbench("show", "mlp").stdout
    assert "weight_decay" in debiasbench("show", "training").stdout


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


@pytest.mark.parametrize("word", ["--help", "list"])
def test_help_and_list_import_nothing_heavy(word: str) -> None:
    code = (
        "import sys\nfrom debiasbench.cli import main\n"
        f"try:\n    main(['{word}'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'pandas', 'numpy', 'sklearn', 'scipy', 'rich', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_on_a_terminal_each_stage_has_a_bar_that_counts_its_steps() -> None:
    screen = io.StringIO()
    with Bar(Console(file=screen, force_terminal=True, no_color=True, width=80)) as bar:
        for stage in ("identify", "train"):
            bar.start(stage, 3)
            for _ in range(3):
                bar.advance()
            bar.finish()
    shown = screen.getvalue()
    assert "identify" in shown
    assert "train" in shown
    assert "3/3 steps" in shown


def test_progress_is_silent_where_stderr_is_no_terminal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "debiasbench", "run", "--method", "erm", "--epochs", "1"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert "Record: results" in done.stdout


def test_a_sparsity_without_a_value_is_explained(debiasbench: Cli) -> None:
    result = debiasbench(*RUN, "--sparse", "rigl:density")
    assert result.exit_code == 2
    assert "'density' is not OPTION=VALUE. Write it as in rigl:density=0.05" in result.stderr


def test_any_method_can_be_made_sparse_and_the_leaderboard_says_so(debiasbench: Cli) -> None:
    words = ("run", "--method", "groupdro", "--dataset", "toy", "--model", "mlp")
    sparse = (*words, "--sparse", 'rigl:density=0.25,every=10%,exclude=["*.1.weight"]')
    result = debiasbench(*sparse)
    assert result.exit_code == 0, result.output
    assert "groupdro on toy with mlp, sparse by rigl, seed 0" in result.stdout
    (path,) = Path("results").glob("toy-groupdro-rigl-0-*.json")
    record = read(path)
    assert record.spec.sparse is not None
    assert record.spec.sparse.options["every"] == "10%"
    assert record.provenance.plugins["sparse"].startswith("debiasbench ")
    assert record.cost is not None
    assert 0.25 < record.cost.density < 1  # the excluded layer stays dense
    assert "Already done" in debiasbench(*sparse).stdout
    debiasbench(*words)
    table = debiasbench("leaderboard", "results").stdout
    assert "| groupdro + rigl " in table
    assert "| groupdro " in table


def test_a_method_that_is_sparse_by_itself_takes_no_second_sparsity(debiasbench: Cli) -> None:
    words = ("run", "--method", "rest", "--dataset", "toy", "--sparse", "set:density=0.2")
    assert "Two components make" in only(debiasbench(*words), 2)
    assert not list(Path("results").glob("*.json"))
