"""Files for the Hugging Face hub go up in few commits, each of which ends with a record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from debiasbench.common.errors import StoreError
from debiasbench.common.progress import Progress
from debiasbench.records.places import hub, remote
from debiasbench.records.places.copying import Copying
from debiasbench.records.places.folder import FolderShelf
from debiasbench.records.places.place import shelf
from tests.records.places import servers
from tests.records.test_record import SPEC
from tests.records.test_verify import honest


class Hub(MemoryFileSystem):
    """Repositories in memory, which only change by commits, as those of the hub."""

    protocol = "hf"
    endpoint, token = "https://localhost", False
    store: dict[str, Any] = {}  # noqa: RUF012
    commits: list[list[str]] = []  # noqa: RUF012 - emptied before a test

    def resolve_path(self, path: str) -> Any:
        return Resolved(path)

    def repo_info(self, repo_id: str, **_: Any) -> Any:
        return SimpleNamespace(sha=str(len(self.commits)))

    def create_commit(
        self, *, repo_id: str, repo_type: str, operations: Any, parent_commit: str, **_: Any
    ) -> Any:
        assert (repo_id, repo_type) == ("user/name", "dataset")
        if parent_commit != str(len(self.commits)):
            raise OSError("412: a commit has happened since")
        self.commits.append([operation.path_in_repo for operation in operations])
        for operation in operations:
            with operation.as_file() as file:
                super().pipe_file(f"/datasets/user/name/{operation.path_in_repo}", file.read())
        return SimpleNamespace(oid=str(len(self.commits)))

    def pipe_file(self, *_: Any, **__: Any) -> None:
        raise AssertionError("this would be a commit for one file")


class Resolved:
    repo_id, repo_type, revision = "user/name", "dataset", "main"

    def __init__(self, path: str) -> None:
        self.path_in_repo = path.strip("/").split("/", 3)[3]


def test_records_are_pushed_in_few_commits_and_pulled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "commits", [])
    monkeypatch.setattr(remote, "opened", lambda url, _: (Hub(), "/" + url.partition("://")[2]))
    monkeypatch.setattr("huggingface_hub.HfApi", lambda **_: Hub())
    monkeypatch.setattr(hub, "FILES", 6)
    for seed in range(10):
        honest(tmp_path / "here", replace(SPEC, seed=seed))
    place = "hf://datasets/user/name/records"
    pushed = Copying(FolderShelf(tmp_path / "here"), shelf(place)).run(Progress())
    assert pushed.copied == 10
    assert len(Hub.commits) in {3, 4}
    seen: set[str] = set()
    for commit in Hub.commits:
        seen |= set(commit)
        for name in commit:
            if name.endswith(".json"):
                assert name.replace(".json", ".predictions.safetensors") in seen
    again = Copying(FolderShelf(tmp_path / "here"), shelf(place)).run(Progress())
    assert (again.copied, again.there) == (0, 10)
    honest(tmp_path / "here", replace(SPEC, seed=11))
    there = shelf(place)
    listing = there.listing

    def overtaken() -> Any:
        found = listing()
        Hub.commits.append([])  # by somebody else
        return found

    monkeypatch.setattr(there, "listing", overtaken)
    with pytest.raises(StoreError, match="412: a commit has happened since"):
        Copying(FolderShelf(tmp_path / "here"), there).run(Progress())
    assert Copying(FolderShelf(tmp_path / "here"), shelf(place)).run(Progress()).copied == 1
    pulled = Copying(shelf(place), FolderShelf(tmp_path / "back")).run(Progress())
    assert pulled.copied == 11
    back, here = (servers.contents(str(tmp_path / name)) for name in ("back", "here"))
    assert back == {name: content for name, content in here.items() if name[0] != "."}
