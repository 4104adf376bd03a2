"""What commands refuse before they begin: options given twice, empty values, unusable folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result

from debiasbench.cli import main
from debiasbench.cli.parsing import Command, Folder
from debiasbench.common.errors import DataError, StoreError
from tests.cli.calls import RUN, only, records

Cli = Callable[..., Result]

FAST = ("--dataset", "toy", "--model", "mlp", "--epochs", "1")


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        else:
            yield " ".join([*names, name]), command


COMMANDS = dict(commands(main))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_options_that_are_given_twice(name: str) -> None:
    assert isinstance(COMMANDS[name], Command), "write @click.command(cls=Command)"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("run", "--method", "erm", "--method", "rest"), "--method is given twice"),
        (("run", "--method", "erm", "--seed", "1", "--seed=1"), "--seed is given twice"),
        (("compare", "erm", "--seeds", "0", "--seeds", "1"), "--seeds is given twice"),
        (("bench", "--device", "cpu", "--device", "cpu"), "--device is given twice"),
        (("sweep", "a.toml", "--limit", "1", "--limit", "2"), "--limit is given twice"),
        (
            ("sweep", "a.toml", "--keep-going", "--stop-at-first-error"),
            "--keep-going/--stop-at-first-error is given twice",
        ),
        (("suite", "show", "a.toml", "--results", "a", "--results", "b"), "--results is given"),
        (("run", "--method", "erm", "--dataset", ""), "--dataset is empty"),
        (("run", "--method", "erm", "--model="), "--model is empty"),
        (("run", "--method", "erm", "--sparse", ""), "--sparse is empty"),
        (("run", "--method", "erm", "--set", ""), "--set is empty"),
        (("run", "--method", "erm", "--results", ""), "--results is empty"),
        (("leaderboard", "--out", ""), "--out is empty"),
        (("leaderboard", ""), "[RESULTS]... is empty"),
        (("data", "show", "toy", "--out", ""), "--out is empty"),
        (("export", ""), "RECORD is empty"),
        (("compare", "erm", ""), "METHOD... is empty"),
        (("show", ""), "NAME is empty"),
        (("data", "import", "x", "--images", "x", "--bias", ""), "--bias is empty"),
    ],
)
def test_an_option_that_is_given_twice_or_empty_is_a_usage_error(
    words: tuple[str, ...], complaint: str, debiasbench: Cli
) -> None:
    result = debiasbench(*words)
    assert result.exit_code == 2, result.output
    assert f"Error: {complaint}" in result.stderr
    assert records() == []


def test_a_flag_may_be_repeated(debiasbench: Cli) -> None:
    result = debiasbench(*RUN, "--epochs", 1, "--quiet", "--quiet")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", [("run", "--method", "erm"), ("compare", "erm"), ("bench",)])
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--batch-size", "8", "--set", "train.batch_size=8"), "train.batch_size is given twice: "),
        (("--batch-size", "auto", "--set", "train.micro_batch=8"), "train.micro_batch is given"),
        (("--precision", "fp32", "--set", "train.precision=bf16"), "train.precision is given"),
        (("--set", "train.lr=1", "--set", "train.lr=2"), "train.lr is given twice"),
        (("--set", "lr=0.1"), "Did you mean 'train.lr'?"),
        (("--set", "model.hidden=8"), "hidden='8': must be a list in brackets, such as [100,"),
    ],
)
def test_settings_are_read_alike_by_all_commands(
    command: tuple[str, ...], words: tuple[str, ...], complaint: str, debiasbench: Cli
) -> None:
    assert complaint in only(debiasbench(*command, *words, "--model", "mlp"), 2)


def test_automatic_batch_size_goes_with_a_batch_size(debiasbench: Cli) -> None:
    words = ("--batch-size", "auto", "--set", "train.batch_size=8")
    result = debiasbench("run", "--method", "erm", *FAST, *words, "--quiet")
    assert result.exit_code == 0, result.output


LONG = "x" * 300


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run", "--method", "erm", *FAST, "--results", LONG), 7),
        (("compare", "erm", *FAST, "--results", LONG), 7),
        (("sweep", "cmnist-trio", "--dry-run", "--results", LONG), 7),
        (("suite", "show", "cmnist-trio", "--no-forecast", "--results", "file"), 7),
        (("cache", "ls", "--results", LONG), 7),
        (("cache", "gc", "--results", "file"), 7),
        (("run", "--method", "erm", "--dataset", "cmnist", "--data-root", LONG), 4),
        (("data", "list", "--data-root", LONG), 4),
        (("data", "list", "--data-root", "file"), 4),
        (("suite", "new", f"{LONG}.toml"), 7),
        (("suite", "new", "nowhere/x.toml"), 7),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(
    words: tuple[str, ...], code: int, debiasbench: Cli
) -> None:
    Path("file").touch()
    only(debiasbench(*words), code)


@pytest.mark.parametrize("error", [StoreError, DataError])
def test_a_folder_without_permission_cannot_be_used(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(error, "Choose another folder")  # type: ignore[arg-type]
    assert folder.convert(str(tmp_path), None, None) == tmp_path
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(error, match=r": Permission denied\. Choose another folder"):
        folder.convert(str(tmp_path), None, None)


def test_a_name_of_a_record_that_is_too_long_is_one_line(
    debiasbench: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("debiasbench.specs.spec.Spec.stem", "x" * 300)
    assert "Cannot write to results: File name too long" in only(
        debiasbench("run", "--method", "erm", *FAST, "--quiet"), 7
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run", "--method", "y" * 100_000), 2),
        (("run", "--method", "erm", "--seed", "9" * 100_000), 2),
        (("run", "--method", "erm", "--seed", 2**63), 2),
        (("run", "--method", "erm", "--set", f"train.epochs={'9' * 5000}"), 2),
        (("run", "--method", "erm", "--set", f"train.epochs={2**63}"), 2),
        (("run", "--method", "erm", "--set", f"{'y' * 100_000}=1"), 2),
        (("run", "--method", "erm", "--model", "mlp", "--set", f"model.hidden={'[' * 5000}"), 2),
        (("run", "--method", "erm", "--sparse", "[" * 5000), 2),
        (("run", "--method", "erm", "--sparse", f"rigl:every={'9' * 5000}"), 2),
        (("compare", "erm", "--seeds", "9" * 100_000), 2),
        (("compare", "erm", "--set", f"train.lr={'1,' * 50_000}"), 2),
        (("show", "y" * 100_000), 2),
        (("cache", "gc", "--limit", "9" * 400), 2),
        (("cache", "gc", "--limit", "1e400"), 2),
        (("cache", "gc", "--limit", "nan"), 2),
        (("cache", "gc", "--limit", "-1"), 2),
        (("cache", "gc", "--limit", "٣"), 2),  # a digit of another script
    ],
)
def test_huge_and_odd_values_are_foreseen_and_have_a_short_message(
    words: tuple[object, ...], code: int, debiasbench: Cli
) -> None:
    result = debiasbench(*words)
    assert result.exit_code == code, (result.output[-500:], result.exception)
    assert "--debug" not in result.stderr
    assert len(result.stderr) < 2200


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("gpu", "--device gpu: no device has this name. Use cpu, cuda, "),
        ("cuda:-1", "--device cuda:-1: no device has this name"),
        ("meta", "--device meta is not available"),
    ],
)
def test_a_device_that_does_not_exist_is_an_error_even_if_the_run_is_done(
    name: str, complaint: str, debiasbench: Cli
) -> None:
    debiasbench("run", "--method", "erm", *FAST, "--quiet")
    (path,) = records()
    for words in (("--method", "erm", *FAST), ("--spec", path)):
        assert complaint in only(debiasbench("run", *words, "--device", name), 2)


@pytest.mark.parametrize("words", [("export", "none.json"), ("run", "--spec", "none.json")])
def test_a_record_that_does_not_exist_is_not_damaged(
    words: tuple[str, ...], debiasbench: Cli
) -> None:
    result = debiasbench(*words)
    assert result.exit_code == 2
    assert "none.json' does not exist" in result.stderr


@pytest.mark.parametrize("words", [("export",), ("run", "--spec"), ("sweep",), ("suite", "show")])
def test_a_pipe_is_not_read(words: tuple[str, ...], debiasbench: Cli) -> None:
    os.mkfifo("pipe.toml")
    line = only(debiasbench(*words, "pipe.toml"), 9 if words[0] in ("export", "run") else 2)
    assert line == "pipe.toml cannot be read: It is not a regular file"


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc', not a number from 1"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1', not a number from 1"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK is 'x', not a number from 0"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "y"}, "LOCAL_RANK is 'y', not a number"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "cannot be joined (Error initializing torch.distrib"),
    ],
)
def test_variables_that_torchrun_cannot_have_set_are_one_line(
    variables: dict[str, str], complaint: str, debiasbench: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    line = only(debiasbench("run", "--method", "erm", *FAST, "--quiet"), 2)
    assert complaint in line
    assert line.endswith("or unset WORLD_SIZE")


def test_an_empty_variable_is_not_set(debiasbench: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "")
    assert debiasbench("run", "--method", "erm", *FAST, "--quiet").exit_code == 0
