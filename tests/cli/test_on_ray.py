"""`--on ray`: options that do not fit, and runs that need more of a GPU; without Ray."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from debiasbench.cli import on_ray
from debiasbench.cli.on_ray import Asked
from debiasbench.runs.jobs import Jobs
from debiasbench.runs.ray_cluster import Cluster, Request
from debiasbench.runs.session_options import SessionOptions
from debiasbench.runs.sweep import Attempt
from tests.suites import BASE, write

Cli = Callable[..., Result]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workers", "2"), "--workers needs --on ray or --on slurm"),
        (("--gpus-per-run", "0.5"), "--gpus-per-run needs --on ray"),
        (("--fetch-checkpoints", "60"), "--fetch-checkpoints needs --on ray"),
        (("--on", "ray", "--jobs", "2"), "use --workers N with --on ray"),
        (("--on", "ray", "--together", "auto"), "give a number for a cluster"),
        (("--on", "rya"), "'rya' is no place for runs. Use local, ray, ray:HOST:PORT or slurm"),
        (("--on", "ray:"), "'ray:' is no place for runs"),
        (("--on", "local:8"), "'local:8' is no place for runs"),
        (("--on", "ray", "--cpus-per-run", "0"), "0.0 is not in the range x>0"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(
    debiasbench: Cli, words: tuple[str, ...], message: str
) -> None:
    refused = debiasbench("sweep", write(BASE), "--device", "cpu", *words)
    assert refused.exit_code == 2
    assert message in refused.stderr


def test_a_table_of_the_session_file_is_used_on_ray_only(
    debiasbench: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Asked] = []

    def attempt(one: Asked, *_: object) -> int:
        asked.append(one)
        return 0

    monkeypatch.setattr(on_ray, "attempt", attempt)
    Path("session.toml").write_text("[ray]\nworkers = 3\ngpus-per-run = 0.25\ncpus-per-run = 2\n")
    words = ("sweep", write(BASE), "--device", "cpu", "--session", "session.toml")
    debiasbench(*words, "--on", "ray:10.0.0.1:6379", "--cpus-per-run", "4")
    assert asked == [Asked("10.0.0.1:6379", cpus=4, gpus=0.25, workers=3)]
    assert debiasbench(*words, "--quiet").exit_code == 0
    assert len(asked) == 1
    Path("session.toml").write_text('[ray]\nworkers = "many"\n')
    assert "ray.workers = 'many': must be a number" in debiasbench(*words).stderr


def test_without_ray_a_sweep_says_what_to_install(
    debiasbench: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE"):  # the command sets them if unset
        monkeypatch.setenv(name, "0")
    refused = debiasbench("sweep", write(BASE), "--device", "cpu", "--on", "ray")
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[-1] == (
        'Error: --on ray needs Ray, which is not installed: pip install "debiasbench[ray]"'
    )


def test_a_run_that_does_not_fit_into_its_part_of_a_gpu_gets_twice_as_much_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}]
    cluster = Cluster(SimpleNamespace(nodes=lambda: nodes), None)  # type: ignore[arg-type]
    monkeypatch.setattr(on_ray, "_cluster", lambda _: cluster)
    asked: list[tuple[list[str], Request]] = []
    counted: dict[str, str] = {}

    def attempt(
        _: Any, jobs: Any, __: Any, report: Callable[..., bool], ___: Any, request: Request
    ) -> int:
        asked.append((list(jobs.specs), request))
        for title in jobs.specs:
            fits = title == "small" or (title == "middle" and request.gpus > 0.25)
            memory = Attempt("failed", problem="out of memory", exit_code=10)
            assert report(title, Attempt("trained") if fits else memory)
        return 0

    def count(title: str, outcome: Attempt) -> bool:
        assert title not in counted
        counted[title] = outcome.state
        return True

    monkeypatch.setattr(on_ray, "_attempt", attempt)
    specs: Any = dict.fromkeys(["small", "middle", "large"])
    jobs = Jobs(specs, SessionOptions(Path("data")))
    assert on_ray.attempt(Asked(gpus=0.25), jobs, list, count) == 0
    assert asked == [
        (["small", "middle", "large"], Request(1, 0.25)),
        (["middle", "large"], Request(1, 0.5)),
    ]
    assert counted == {"small": "trained", "middle": "trained", "large": "failed"}
