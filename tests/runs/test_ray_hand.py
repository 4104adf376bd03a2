"""The driver's side of a process on a cluster, with a cluster of a script instead of Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from debiasbench.common.errors import BusyError
from debiasbench.records.store import Store
from debiasbench.runs import on_ray
from debiasbench.runs.carried import packed
from debiasbench.runs.crew import End
from debiasbench.runs.jobs import Jobs
from debiasbench.runs.on_ray import RayHand, RayPool
from debiasbench.runs.ray_cluster import Cluster, Request
from debiasbench.runs.ray_node import Begun, Sent
from debiasbench.runs.session_options import SessionOptions
from debiasbench.specs.spec import Spec
from tests.runs.test_ray_node import RECORDS, STAGE, _spec


class RayError(Exception): ...


class RayActorError(RayError): ...


class ActorUnavailableError(RayActorError): ...


class RayTaskError(RayError):
    cause = None


class Ray:
    """Answers calls of actors with what `answers` holds, and notes them."""

    exceptions = SimpleNamespace(
        RayError=RayError,
        RayActorError=RayActorError,
        ActorUnavailableError=ActorUnavailableError,
        RayTaskError=RayTaskError,
    )

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.answers: list[Any] = []
        self.killed = 0
        self.slots = 1

    def put(self, value: Any) -> Any:
        return value

    def remote(self, _: type) -> Any:
        actor = SimpleNamespace(
            **{
                name: SimpleNamespace(remote=self._noting(name))
                for name in ("begin", "order", "reports", "stop")
            }
        )
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: actor))

    def _noting(self, name: str) -> Callable[..., object]:
        def call(*arguments: Any) -> object:
            self.calls.append((name, arguments))
            return object()

        return call

    def get(self, _: object) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, calls: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return (calls[:1], calls[1:]) if self.answers else ([], calls)

    def kill(self, _: object) -> None:
        self.killed += 1

    def nodes(self) -> list[Any]:
        return [{"Alive": True, "Resources": {"CPU": float(self.slots)}}]


@pytest.fixture
def ray() -> Ray:
    return Ray()


def pool(ray: Ray, results: Path, specs: dict[str, Spec], **more: Any) -> tuple[RayPool, list[str]]:
    said: list[str] = []
    jobs = Jobs(specs, SessionOptions(results.parent, results, device="cpu"))
    cluster = Cluster(ray, None)  # type: ignore[arg-type]
    return RayPool(cluster, Request(), jobs, said.append, **more), said


def hand(ray: Ray, made: RayPool, *, shared: bool = False) -> RayHand:
    one = made.hire(0)
    ray.answers.append(Begun("node-1", shared))
    one.answered()
    return one


def trained(title: str) -> list[Any]:
    return [title, {"state": "trained", "path": "/on/the/node.json"}]


def test_a_record_is_stored_while_the_claim_of_its_run_is_held(ray: Ray, tmp_path: Path) -> None:
    spec, store = _spec(RECORDS[0]), Store(tmp_path / "results")
    made, _ = pool(ray, store.folder, {"a": spec})
    one = hand(ray, made)
    one.order(["a"])
    assert ray.calls[-1] == ("order", (0, ["a"], {}))
    with pytest.raises(BusyError), store.claim(spec):
        pass
    ray.answers.append((0, [Sent((None,)), Sent((trained("a"),), packed(RECORDS[0]))], None))
    one.answered()
    path = str(store.folder / f"{spec.stem}.json")
    assert one.reports() == [None, ["a", {"state": "trained", "path": path}]]
    assert Path(path).exists()
    with store.claim(spec):
        pass


def test_a_run_that_another_command_trains_is_not_sent_to_a_node(ray: Ray, tmp_path: Path) -> None:
    specs = {"a": _spec(RECORDS[0]), "b": _spec(RECORDS[1])}
    made, _ = pool(ray, tmp_path / "results", specs)
    one = hand(ray, made)
    with Store(tmp_path / "results").claim(specs["a"]):
        one.order(["a", "b"])
        assert ray.calls[-1] == ("order", (0, ["b"], {}))
        assert one.reports() == [["a", {"state": "elsewhere"}]]
    one.close()
    with Store(tmp_path / "results").claim(specs["b"]):  # it was given back
        pass


def test_a_damaged_record_is_a_failed_run(ray: Ray, tmp_path: Path) -> None:
    made, _ = pool(ray, tmp_path / "results", {"a": _spec(RECORDS[0])})
    one = hand(ray, made)
    one.order(["a"])
    files = {**packed(RECORDS[0]), "predictions": b"?"}
    ray.answers.append((0, [Sent((trained("a"),), files)], None))
    one.answered()
    ((_, plain),) = one.reports()
    assert (plain["state"], plain["exit_code"]) == ("failed", 9)
    assert "damaged on the way" in plain["problem"]


def test_what_is_sent_twice_counts_once_and_orders_are_repeated_after_a_lost_connection(
    ray: Ray, tmp_path: Path
) -> None:
    made, _ = pool(ray, tmp_path / "results", {"a": _spec(RECORDS[0])})
    one = hand(ray, made, shared=True)
    ray.answers.append((0, [Sent((None,))], None))
    one.answered()
    one.order(["a"])
    ray.answers.append(ActorUnavailableError("its connection"))
    one.answered()
    one.tick()
    assert ray.calls[-2:] == [
        ("order", (0, ["a"], None)),
        ("reports", (1, on_ray.POLL)),
    ]
    ray.answers.append((0, [Sent((None,)), Sent((trained("a"),))], End(0, "")))
    one.answered()
    assert one.reports() == [None, trained("a")]
    assert one.ended() == End(0, "")


NODE = "The actor died because its node has died. Node Id: 5f"
PROCESS = "The actor died unexpectedly\nThe actor is dead because its worker process has died."
MEMORY = (
    "The actor is dead because its worker process has died. Worker exit type: NODE_OUT_OF_MEMORY"
)


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (RayActorError(NODE), "its node was lost"),
        (RayActorError(PROCESS), "its process on a node was lost"),
        (RayActorError(MEMORY), "its process was killed because its node ran out of memory"),
        (RayError("An object was lost\nmore"), "its node was lost (An object was lost)"),
    ],
)
def test_a_lost_process_can_be_replaced(
    ray: Ray, tmp_path: Path, error: Exception, how: str
) -> None:
    made, said = pool(ray, tmp_path / "results", {})
    one = hand(ray, made)
    ray.answers.append(error)
    one.answered()
    assert one.ended() == End(1, how, lost=True)
    assert said == []


def test_nodes_that_cannot_begin_say_why_once(ray: Ray, tmp_path: Path) -> None:
    made, said = pool(ray, tmp_path / "results", {})
    creation = (
        "The actor died because of an error raised in its creation task, ray::Slot.__init__() "
        "(pid=16678, ip=10.0.0.7)\nModuleNotFoundError: No module named 'debiasbench'"
    )
    for answer in ("node-2 has debiasbench 0.0.1", "node-2 has debiasbench 0.0.1"):
        one = made.hire(0)
        ray.answers.append(answer)
        one.answered()
        assert one.ended() == End(1, answer)
    one = made.hire(0)
    ray.answers.append(RayActorError(creation))
    one.answered()
    assert said == [
        "Error: node-2 has debiasbench 0.0.1",
        "Error: a process could not begin on node 10.0.0.7 (ModuleNotFoundError: No module named "
        "'debiasbench'): install the same version of debiasbench on all nodes",
    ]


def test_a_process_that_does_not_stop_is_given_up(
    ray: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "STOPPING", 0.05)
    made, _ = pool(ray, tmp_path / "results", {})
    one = hand(ray, made)
    one.stop()
    assert ray.calls[-1] == ("stop", ())
    one.tick()
    assert one.ended() is None
    time.sleep(0.06)
    one.tick()
    assert one.ended() == End(130, "its process did not stop")


def test_checkpoints_are_stored_and_go_with_the_run_where_asked(ray: Ray, tmp_path: Path) -> None:
    made, _ = pool(ray, tmp_path / "results", {"a": _spec(RECORDS[0])}, fetch=60.0)
    first = hand(ray, made)
    first.order(["a"])
    files = {f"{STAGE}/running": (1000.0, b"step 10")}
    ray.answers.append((0, [Sent(titles=("a",), stages=files)], End(75, "it was stopped")))
    first.answered()
    first.close()
    second = hand(ray, made)
    second.order(["a"])
    assert ray.calls[-1] == ("order", (0, ["a"], files))
    second.close()


def test_more_processes_are_started_when_the_cluster_has_grown(
    ray: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "LOOK", 0.0)
    monkeypatch.setattr(on_ray, "ROOM", 0.0)
    made, said = pool(ray, tmp_path / "results", {})
    grown: list[int] = []
    crew: Any = SimpleNamespace(grow=grown.append)
    assert made.processes == 1
    waiting = made.hire(0)
    made.wait([waiting], crew)
    assert said == ["Waiting until the cluster has room for a process with 1 CPU"]
    ray.slots = 3
    made.wait([waiting], crew)
    made.wait([waiting], crew)
    assert grown == [2]


def test_what_processes_print_is_shown_with_their_node(ray: Ray, tmp_path: Path) -> None:
    made, said = pool(ray, tmp_path / "results", {})
    one = hand(ray, made)
    ray.answers.append((0, [Sent(said="Warning: one\n\n  two\n")], None))
    one.answered()
    assert said == ["node-1: Warning: one", "node-1:   two"]


def test_the_file_that_marks_the_results_folder_is_removed(ray: Ray, tmp_path: Path) -> None:
    made, _ = pool(ray, tmp_path / "results", {})
    with suppress(ValueError), made.shared():
        file = tmp_path / "results" / made.start.token
        assert file.read_text() == made.start.token
        raise ValueError
    assert list((tmp_path / "results").iterdir()) == []
