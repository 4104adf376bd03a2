"""Copy records from one place to another: merge what is new, and name what is in conflict."""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from debiasbench.common.errors import BusyError, Interrupted, RecordError
from debiasbench.common.wording import listed
from debiasbench.records.beside import PREDICTIONS, WEIGHTS, sha256
from debiasbench.records.held import Choice
from debiasbench.records.places import parcel, searches
from debiasbench.records.places.shelf import Changed, Item, Listing, Shelf, id_in, md5
from debiasbench.records.reading import MOST_BYTES
from debiasbench.records.upgrade import former_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from debiasbench.common.progress import Progress
    from debiasbench.records.places.parcel import Parcel

AT_ONCE = 16  # transfers; a store answers many requests at once, and a folder syncs to the disk
TRIES = 3  # for a record that others write at the same time

State = Literal["copied", "there", "left out", "conflict", "busy", "bad"]


@dataclass(frozen=True)
class Outcome:
    """What became of one file, and what to say about it."""

    state: State
    message: str = ""
    of_search: bool = False


@dataclass
class Tally:
    """What became of the records, and of the files of searches."""

    copied: int = 0
    there: int = 0
    searches: int = 0  # files of searches that were copied
    conflicts: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def count(self, outcome: Outcome) -> None:
        """Count what became of one file."""
        match outcome.state:
            case "copied":
                self.copied += not outcome.of_search
                self.searches += outcome.of_search
                self.warnings += [outcome.message] if outcome.message else []
            case "there":
                self.there += 1
            case "conflict":
                self.conflicts.append(outcome.message)
            case "busy":
                self.busy.append(outcome.message)
            case "bad":
                self.bad.append(outcome.message)

    def text(self, verb: str) -> str:
        """Write the numbers in one line; `verb` is such as "pushed"."""
        parts = [f"{self.copied:,} {verb}", f"{self.there:,} already there"]
        parts += [f"{self.searches:,} files of searches {verb}"] if self.searches else []
        number = len(self.conflicts)
        parts += [f"{number:,} conflict{'s' if number > 1 else ''}"] if number else []
        parts += [f"{len(self.busy):,} being run"] if self.busy else []
        parts += [f"{len(self.bad):,} that cannot be read"] if self.bad else []
        return ", ".join(parts)


class Copying:
    """Copies records, and files of searches, from `source` to `target`.

    `wanted`: which records; files of searches are only copied if all are. `with_weights`: whether
    weights are copied too.
    """

    def __init__(
        self,
        source: Shelf,
        target: Shelf,
        *,
        wanted: Choice | None = None,
        with_weights: bool = False,
    ) -> None:
        self._source, self._target = source, target
        self._wanted, self._with_weights = wanted or Choice(), with_weights
        self._of_source, self._of_target = Listing(), Listing()

    def run(
        self, progress: Progress, check: Callable[[], object] = lambda: None, *, title: str = "copy"
    ) -> Tally:
        """Copy everything; return what became of it.

        `check` is called now and then, and can raise `Interrupted` to stop after the transfers that
        have begun. Raises `StoreError` if one of the places fails. In both cases, what was copied
        is complete, and calling this again continues.
        """
        self._of_source, self._of_target = self._source.listing(), self._target.listing()
        jobs = self._of_source.records()
        if self._wanted.is_all:
            jobs += searches.files(self._of_source)
        tally = Tally()
        progress.start(title, len(jobs))
        try:
            self._all(jobs, tally, progress, check)
        finally:
            progress.finish()
            self._target.finish()
        return tally

    def _all(
        self, jobs: Iterable[Item], tally: Tally, progress: Progress, check: Callable[[], object]
    ) -> None:
        left, running = deque(jobs), set[Future[Outcome]]()
        with ThreadPoolExecutor(AT_ONCE, "debiasbench-copy") as pool:
            try:
                while left or running:
                    check()
                    while left and len(running) < 2 * AT_ONCE:
                        running.add(pool.submit(self._one, left.popleft()))
                    done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                    for future in done:
                        tally.count(future.result())
                        running.remove(future)
                        progress.advance()
            except Interrupted as error:
                pool.shutdown(cancel_futures=True)  # those that have begun end
                for future in running:
                    if not future.cancelled() and future.exception() is None:
                        tally.count(future.result())
                number = tally.copied + tally.searches
                raise Interrupted(f" after {number:,} copies", resumable=number > 0) from error
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _one(self, item: Item) -> Outcome:
        """Copy a record or a file of a search."""
        try:
            if searches.is_file(item.name):
                return self._search(item)
            return self._record(item)
        except BusyError as error:
            return Outcome("busy", str(error))
        except RecordError as error:
            return Outcome("bad", str(error))

    def _record(self, item: Item) -> Outcome:
        known = self._known(item)
        content = self._source.read(item.name, MOST_BYTES) if known is None else known
        sent = parcel.parsed(self._source.title, item.name, content)
        if not self._wanted.has(sent.record):
            return Outcome("left out")
        for attempt in range(TRIES):
            outcome = self._compared(sent, fresh=attempt > 0)
            if outcome is not None:
                return outcome
            with self._target.holding(sent.record.spec), suppress(Changed):
                return self._sent(sent)
        return Outcome("busy", f"{sent.stem} is being written by another process again and again")

    def _known(self, item: Item) -> bytes | None:
        """Return the content of a record that both places have, without a transfer.

        Either place may be one that lists an MD5; the other one is read then.
        """
        for name in self._of_target.of(id_in(item.name)) if item.md5 else ():
            with suppress(RecordError):
                content = self._target.read(name, MOST_BYTES)
                if md5(content) == item.md5:
                    return content
        return None

    def _compared(self, sent: Parcel, *, fresh: bool) -> Outcome | None:
        """Return what is to be said about a record that need not be copied, None if it must be.

        `fresh`: look again for the record, which another process may have written.
        """
        names = self._names(sent, fresh=fresh)
        digest = md5(sent.content)
        for name in names:
            if name in self._of_target.items and self._of_target.items[name].md5 == digest:
                return self._complete(sent, name)
        for name in names:
            try:
                there = parcel.read(self._target, name)
            except RecordError as error:
                if name in self._of_target.items:
                    return Outcome("bad", str(error))
                continue  # it was only looked for
            if there.record.id == sent.record.id:
                return self._judged(sent, there)
        return None

    def _judged(self, sent: Parcel, there: Parcel) -> Outcome | None:
        """Compare two records of a spec; return None if the one that is there is replaced."""
        if there.content == sent.content:
            return self._complete(sent, there.name)
        if there.record.status != sent.record.status:
            return None if sent.record.status == "ok" else Outcome("there")
        differs = parcel.conflict(there.record, sent.record)
        if not differs:
            return Outcome("there")
        equal = "predictions" not in differs and "outcomes" not in differs
        return Outcome(
            "conflict",
            f"{sent.stem}: {self._source.title}/{sent.name} and {self._target.title}/{there.name} "
            f"are different records of one spec{', with equal results' if equal else ''}. They "
            f"differ in {listed(differs)}",
        )

    def _names(self, sent: Parcel, *, fresh: bool) -> list[str]:
        """Return the names that the record may have at the target, also those of older schemas."""
        names = self._of_target.of(sent.record.id)
        if not names and self._of_target.items:
            ids = former_ids(asdict(sent.record.spec))
            names = [name for one in ids for name in self._of_target.of(one)]
        own = f"{sent.stem}.json"
        return names + ([own] if fresh and own not in names else [])

    def _complete(self, sent: Parcel, name: str) -> Outcome:
        """Copy files beside an equal record that the target lacks."""
        folder = name.rpartition("/")[0]
        before = f"{folder}/" if folder else ""
        lacking = [
            ending
            for ending, of_source in ((PREDICTIONS, sent.predictions), (WEIGHTS, sent.weights))
            if of_source in self._of_source.items
            and before + sent.stem + ending not in self._of_target.items
            and (ending != WEIGHTS or self._with_weights)
        ]
        if not lacking:
            return Outcome("there")
        with self._target.holding(sent.record.spec):
            for ending in lacking:
                self._beside(sent, before + sent.stem, ending, new=False)
        return Outcome("copied")

    def _sent(self, sent: Parcel) -> Outcome:
        """Copy the files beside a record, then the record; the caller holds its claim.

        Raises `Changed` if another process has written the record meanwhile.
        """
        replaced = [n for n in self._names(sent, fresh=False) if self._is_failed(n, sent)]
        folder = replaced[0].rpartition("/")[0] if replaced else ""
        stem = f"{folder}/{sent.stem}" if folder else sent.stem
        warning = ""
        for ending in (PREDICTIONS, WEIGHTS):
            found = self._beside(sent, stem, ending, new=not replaced)
            if ending == PREDICTIONS and not found and sent.record.predictions is not None:
                warning = f"{self._source.title}/{sent.name}: its predictions are missing"
        self._target.write(f"{stem}.json", sent.content, new=f"{stem}.json" not in replaced)
        for name in replaced:
            if name != f"{stem}.json":
                self._target.remove(name)
        return Outcome("copied", warning)

    def _is_failed(self, name: str, sent: Parcel) -> bool:
        """Return whether the record of a failed run is there; raises `Changed` for another one."""
        try:
            there = parcel.read(self._target, name).record
        except RecordError:
            return False
        if there.id == sent.record.id and there.status != "failed":
            raise Changed
        return there.id == sent.record.id

    def _beside(self, sent: Parcel, stem: str, ending: str, *, new: bool) -> bool:
        """Copy the predictions or the weights of a record; return whether there are any."""
        content: bytes | Path | None
        if ending == PREDICTIONS:
            content = parcel.predictions(self._source, sent, self._of_source)
            if content is not None:
                self._write_beside(stem, ending, content, new=new)
            return content is not None
        if not self._with_weights:
            return False
        spool = self._target.spool(stem + ending)
        try:
            if (file := parcel.weights(self._source, sent, self._of_source, spool)) is not None:
                self._write_beside(stem, ending, file, new=False)
        finally:
            spool.unlink(missing_ok=True)
        return file is not None

    def _write_beside(self, stem: str, ending: str, content: bytes | Path, *, new: bool) -> None:
        name = stem + ending
        try:
            self._target.write(name, content, new=new)
        except Changed:
            if isinstance(content, bytes) and self._has(name, content):
                return  # an interrupted copy wrote it
            with suppress(RecordError):
                self._target.read(f"{stem}.json", MOST_BYTES)
                raise  # it belongs to a record that another process has just written
            self._target.write(name, content, new=False)

    def _has(self, name: str, content: bytes) -> bool:
        try:
            return self._target.read(name, len(content)) == content
        except RecordError:  # it is larger
            return False

    def _search(self, item: Item) -> Outcome:
        """Copy a file of a search that the target does not have, after its predictions."""
        title = self._source.title
        content = self._source.read(item.name, MOST_BYTES)
        beside = searches.beside(title, item.name, content)
        if item.name in self._of_target.items:
            if self._target.read(item.name, MOST_BYTES) == content:
                return Outcome("left out")
            return Outcome("conflict", f"{item.name} is another file in {self._target.title}")
        if beside is not None:
            name, digest = beside
            predictions = self._source.read(name, MOST_BYTES)
            if sha256(predictions) != digest:
                raise RecordError(f"{title}/{name} is not the file that {item.name} names")
            self._target.write(name, predictions, new=False)
        with suppress(Changed):
            self._target.write(item.name, content, new=True)
        return Outcome("copied", of_search=True)
