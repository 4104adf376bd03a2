"""A crew whose processes may be lost: each run is done, and a lost one is handed out again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from debiasbench.common.signals import Stop
from debiasbench.runs import crew
from debiasbench.runs.crew import Crew, End
from debiasbench.runs.sweep import Attempt

LOST = End(1, "its node was lost")


class Player:
    """A process of a script: `plays(titles)` returns outcomes, or how it ends."""

    def __init__(self, plays: Callable[[Sequence[str]], list[Attempt] | End]) -> None:
        self.plays = plays
        self.told: list[Any] = [None]
        self.end: End | None = None
        self.given: list[str] = []

    def order(self, titles: Sequence[str] | None) -> None:
        if titles is None:
            self.end = End(0, "")
            return
        self.given += titles
        played = self.plays(titles)
        if isinstance(played, End):
            self.end = played
        else:
            self.told += [
                [title, attempt.as_plain()] for title, attempt in zip(titles, played, strict=True)
            ]

    def reports(self) -> list[Any]:
        told, self.told = self.told, []
        return told

    def ended(self) -> End | None:
        return self.end

    def stop(self) -> None:
        self.end = End(75, "it was stopped")

    def kill(self) -> None:
        self.end = End(-9, "was killed")

    def close(self) -> None:
        pass


def played(
    plays: Callable[[Sequence[str]], list[Attempt] | End],
    titles: list[str],
    *,
    tries: int,
    size: int = 1,
) -> tuple[dict[str, list[Attempt]], list[Player], int]:
    """Let two processes play; return the outcomes by title, all processes, and the exit code."""
    found: dict[str, list[Attempt]] = {title: [] for title in titles}
    players: list[Player] = []

    def hire(_: int) -> Player:
        players.append(Player(plays))
        return players[-1]

    def report(title: str, attempt: Attempt) -> bool:
        found[title].append(attempt)
        return True

    batches = [titles[i : i + size] for i in range(0, len(titles), size)]
    made = Crew(hire, lambda _: None, report, Stop(), tries=tries)
    made.run(batches, processes=2)
    return found, players, made.code


def test_a_run_whose_process_was_lost_is_handed_to_another_one() -> None:
    lost: list[str] = []

    def plays(titles: Sequence[str]) -> list[Attempt] | End:
        if titles[0] == "b" and len(lost) < 2:
            lost.append("b")
            return LOST
        return [Attempt("trained") for _ in titles]

    found, players, code = played(plays, ["a", "b", "c", "d"], tries=3)
    assert [(title, a.state) for title, each in found.items() for a in each] == [
        (title, "trained") for title in "abcd"
    ]
    assert [title for player in players for title in player.given].count("b") == 3
    assert code == 0


def test_a_run_that_loses_every_process_fails_after_its_tries() -> None:
    def plays(titles: Sequence[str]) -> list[Attempt] | End:
        return LOST if titles[0] == "b" else [Attempt("trained") for _ in titles]

    found, players, _ = played(plays, ["a", "b", "c"], tries=3)
    (failed,) = found["b"]
    assert failed.problem == "its node was lost before the record was written, 3 times"
    assert [a.state for title in "ac" for a in found[title]] == ["trained"] * 2
    assert [title for player in players for title in player.given].count("b") == 3


def test_of_a_lost_batch_only_the_runs_without_a_report_are_repeated() -> None:
    begun: list[list[str]] = []

    def plays(titles: Sequence[str]) -> list[Attempt] | End:
        begun.append(list(titles))
        return LOST if len(begun) == 1 else [Attempt("trained") for _ in titles]

    found, _, _ = played(plays, ["a", "b", "c", "d"], tries=2, size=2)
    assert [len(each) for each in found.values()] == [1, 1, 1, 1]
    assert begun[0] == ["a", "b"]
    assert sorted(map(tuple, begun[1:])) == [("a",), ("b",), ("c", "d")]


def test_a_lost_run_that_another_process_still_trains_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "AGAIN", 0.01)
    tries: list[str] = []

    def plays(titles: Sequence[str]) -> list[Attempt] | End:
        if titles[0] != "b":
            return [Attempt("trained")]
        tries.append("b")
        if len(tries) == 1:
            return LOST  # its connection: it trains on
        return [Attempt("elsewhere" if len(tries) < 4 else "done")]

    found, _, code = played(plays, ["a", "b"], tries=3)
    assert [a.state for a in found["b"]] == ["trained"]  # by this command
    assert (len(tries), code) == (4, 0)


def test_a_run_that_was_always_elsewhere_is_not_waited_for() -> None:
    found, _, _ = played(lambda _: [Attempt("elsewhere")], ["a"], tries=3)
    assert [a.state for a in found["a"]] == ["elsewhere"]


def test_processes_that_end_before_they_are_ready_are_not_replaced_for_ever() -> None:
    players: list[Player] = []

    def hire(_: int) -> Player:
        player = Player(lambda titles: [Attempt("trained") for _ in titles])
        player.told, player.end = [], End(3, "it could not import")
        players.append(player)
        return player

    made = Crew(hire, lambda _: None, lambda *_: True, Stop(), tries=3)
    made.run([["a"], ["b"], ["c"]], processes=2)
    assert (len(players), made.code) == (2, 3)


def test_a_process_that_was_lost_before_it_began_is_replaced() -> None:
    players: list[Player] = []

    def hire(_: int) -> Player:
        player = Player(lambda titles: [Attempt("trained") for _ in titles])
        if len(players) < 2:
            player.told, player.end = [], End(1, "its node was lost", lost=True)
        players.append(player)
        return player

    found: list[str] = []

    def report(title: str, _: Attempt) -> bool:
        found.append(title)
        return True

    made = Crew(hire, lambda _: None, report, Stop(), tries=3)
    made.run([["a"], ["b"]], processes=2)
    assert (sorted(found), made.code) == (["a", "b"], 0)
    assert len(players) in {3, 4}


def test_processes_that_are_always_lost_before_they_begin_are_not_replaced_for_ever() -> None:
    players: list[Player] = []

    def hire(_: int) -> Player:
        player = Player(lambda _: [])
        player.told, player.end = [], End(1, "its node was lost", lost=True)
        players.append(player)
        return player

    made = Crew(hire, lambda _: None, lambda *_: True, Stop(), tries=3)
    made.run([["a"], ["b"]], processes=2)
    assert made.code == 1
    assert len(players) <= crew.STARTS + 2


def test_a_process_that_never_begins_does_not_keep_the_others_from_ending() -> None:
    players: list[Player] = []

    def hire(_: int) -> Player:
        player = Player(lambda titles: [Attempt("trained") for _ in titles])
        if not players:
            player.told = []  # it waits for a place, for ever
        players.append(player)
        return player

    found: list[str] = []

    def report(title: str, _: Attempt) -> bool:
        found.append(title)
        return True

    made = Crew(hire, lambda _: None, report, Stop(), tries=3)
    made.run([["a"], ["b"], ["c"]], processes=2)
    assert (found, made.code) == (["a", "b", "c"], 0)
    assert players[0].end == End(75, "it was stopped")


def test_a_crew_grows_by_at_most_one_process_for_each_batch_that_is_left() -> None:
    players: list[Player] = []

    def hire(_: int) -> Player:
        players.append(Player(lambda titles: [Attempt("trained") for _ in titles]))
        return players[-1]

    def wait(hands: Sequence[Player]) -> None:
        if len(hands) == 1 and len(players) == 1:
            made.grow(8)

    made = Crew(hire, wait, lambda *_: True, Stop(), tries=3)
    made.run([["a"], ["b"], ["c"]], processes=1)
    assert len(players) == 4  # before the first one got its batch, three were left
    assert sorted(title for player in players for title in player.given) == ["a", "b", "c"]
