"""`debiasbench results push` and `pull`: summaries, exit codes, and one line for what is wrong."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.common.locks import locked
from debiasbench.records.reading import read
from debiasbench.specs.spec import Choice
from tests.records.places import servers
from tests.records.test_record import SPEC
from tests.records.test_verify import edit, honest, set_at

Cli = Callable[..., Result]
RESULTS = Path("results")


@pytest.fixture
def cli(debiasbench: Cli) -> Cli:
    """Make two methods with two seeds."""
    for seed in (0, 1):
        honest(RESULTS, replace(SPEC, seed=seed))
        honest(RESULTS, replace(SPEC, method=Choice("lff", {"q": 0.7}), seed=seed))
    return debiasbench


@pytest.fixture(scope="module")
def server() -> Iterator[servers.S3]:
    with servers.s3() as running:
        yield running


def test_push_and_pull_say_what_they_did(cli: Cli) -> None:
    pushed = cli("results", "push", "there", "--method", "lff")
    assert (pushed.exit_code, pushed.stdout) == (0, "2 pushed, 0 already there\n")
    assert cli("results", "push", "there").stdout == "2 pushed, 2 already there\n"
    pulled = cli("results", "pull", "there", "--results", "new", "--seed", "1")
    assert (pulled.exit_code, pulled.stdout) == (0, "2 pulled, 0 already there\n")
    assert "there to new: 4 files" in pulled.stderr
    assert cli("results", "pull", f"file://{Path.cwd()}/there", "--quiet").stderr == ""
    listed = cli("results", "ls", "new", "--format", "csv").stdout
    assert listed.count("\n") == 3


def test_a_conflict_is_named_and_gives_the_exit_code_of_records(cli: Cli) -> None:
    cli("results", "push", "there")
    path = RESULTS / f"{SPEC.stem}.json"
    edit(path, set_at("provenance", "hardware", value="a\x1b[31m machine"))
    result = cli("results", "push", "there", "--quiet")
    assert (result.exit_code, result.stdout) == (9, "0 pushed, 3 already there, 1 conflict\n")
    first, second = result.stderr.splitlines()
    assert first == (
        f"{SPEC.stem}: {path} and there/{path.name} are different records of one spec, with equal "
        "results. They differ in provenance.hardware"
    )
    assert "remove the record that you do not want" in second
    assert read(Path("there") / path.name).provenance.hardware == "a machine"


def test_what_cannot_be_read_or_is_being_run_has_its_exit_code(cli: Cli) -> None:
    with locked(Path("there"), SPEC.stem):
        result = cli("results", "push", "there")
    assert (result.exit_code, result.stdout) == (8, "3 pushed, 0 already there, 1 being run\n")
    (RESULTS / "bad.json").write_text("{}\x1b")
    result = cli("results", "push", "there")
    assert result.exit_code == 9
    assert result.stdout == "1 pushed, 3 already there, 1 that cannot be read\n"
    assert "results/bad.json is not valid JSON" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ("push", "nowhere://bucket/x"),
            2,
            "nowhere://bucket/x: the protocol 'nowhere' is not known",
        ),
        (("pull", "s3://"), 2, "names no folder"),
        (("push", "there", "--results", "empty"), 9, "No results at empty"),
        (("pull", "there"), 9, "No results at there"),
        (("pull", "memory://nothing"), 9, "No results at memory://nothing"),
        (("push", "file.txt"), 2, "file.txt is not a folder"),
        (("push", "there", "--seed", "x"), 2, "Seeds 'x'"),
        (("push", "/proc/version/x"), 7, "Cannot write"),
        (("push", "box://x"), 2, "the protocol box needs a package: Please install boxfs"),
        (("push", "ftp://me:secret@127.0.0.1:9/x"), 7, "Cannot use ftp://...@127.0.0.1:9/x: "),
    ],
)
def test_a_place_that_cannot_be_used_is_one_line(
    cli: Cli, words: tuple[str, ...], code: int, message: str
) -> None:
    if words == ("pull", "s3://") and servers.MISSING:
        pytest.skip(f"{' and '.join(servers.MISSING)} not installed")
    Path("file.txt").touch()
    result = cli("results", *words)
    assert (result.exit_code, result.stdout) == (code, "")
    lines = [line for line in result.stderr.splitlines() if line.startswith(("Error", "Usage"))]
    assert len(lines) == 1
    assert message in lines[0]
    assert "secret" not in result.output


@pytest.mark.parametrize(("url", "package"), [("s3://b/x", "s3fs"), ("gs://b/x", "gcsfs")])
def test_a_missing_package_is_named(cli: Cli, url: str, package: str) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    result = cli("results", "push", url)
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: {url}: the protocol {url[:2]} needs a package: install {package}, for example "
        'with pip install "debiasbench[remote]"\n'
    )


def test_a_bucket_without_permission_is_one_line(cli: Cli, server: servers.S3) -> None:
    server.need_permission(True)
    try:
        for command in ("push", "pull"):
            result = cli("results", command, "s3://records/x", "--quiet")
            assert result.exit_code == 7
            assert len(result.stderr.splitlines()) == 1
            assert "s3://records/x: PermissionError: " in result.stderr
            assert "Check the credentials in the environment" in result.stderr
    finally:
        server.need_permission(False)


def test_a_bucket_that_does_not_exist_is_one_line(cli: Cli, server: servers.S3) -> None:
    pushed = cli("results", "push", "s3://nobody/x", "--quiet")
    assert pushed.exit_code == 7
    assert "Cannot write to s3://nobody/x: " in pushed.stderr
    assert "bucket does not exist" in pushed.stderr
    assert cli("results", "pull", "s3://nobody/x", "--quiet").exit_code == 9


def test_no_network_is_one_line(
    cli: Cli, server: servers.S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    result = cli("results", "push", "s3://records/x", "--quiet")
    assert result.exit_code == 7
    assert len(result.stderr.splitlines()) == 1
    assert "Could not connect" in result.stderr
    assert "Check the network, and the address of the server" in result.stderr


SLOW = """
import sys, time
import fsspec
from fsspec.implementations.local import LocalFileSystem

class Slow(LocalFileSystem):
    protocol = "slow"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("slow://"))

    def pipe_file(self, path, value, **_):
        time.sleep(0.3)
        super().pipe_file(path, value)

fsspec.register_implementation("slow", Slow)
from debiasbench.cli import main
main(prog_name="debiasbench")
"""


@pytest.mark.slow
def test_ctrl_c_ends_a_push_which_the_same_command_continues(cli: Cli, tmp_path: Path) -> None:
    for seed in range(2, 120):
        honest(RESULTS, replace(SPEC, seed=seed))
    words = ["results", "push", f"slow://{tmp_path}/there", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *words],
        env={**os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(tmp_path.glob("there/*.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    number = len(list(tmp_path.glob("there/*.json")))
    assert f"Interrupted after {number} copies: run the same command again to continue" in err
    assert 0 < number < 122
    assert not list(tmp_path.glob("there/.*"))
    again = cli("results", "push", f"{tmp_path}/there")
    assert again.stdout == f"{122 - number} pushed, {number} already there\n"
