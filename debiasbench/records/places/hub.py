"""Files for a repository of the Hugging Face hub, many in one commit, since commits are limited."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

FILES = 200  # in a commit


class Commits:
    """Collects files and commits them; a commit appears whole or not at all.

    A commit is refused if somebody else has committed since `begin`, so nothing is overwritten
    that was not seen.
    """

    def __init__(self, fs: Any, root: str) -> None:
        from huggingface_hub import HfApi

        self._api = HfApi(endpoint=fs.endpoint, token=fs.token)
        self._fs, self._root, self._lock = fs, root, Lock()
        self._pending: dict[str, bytes | Path] = {}
        self._parent: str | None = None  # the last commit that was seen

    def begin(self) -> None:
        """Remember the last commit, before files are listed."""
        place = self._fs.resolve_path(self._root)
        info = self._api.repo_info(
            place.repo_id, repo_type=place.repo_type, revision=place.revision
        )
        self._parent = info.sha

    def write(self, path: str, content: bytes | Path, *, new: bool) -> None:
        """Add a file to the next commit."""
        with self._lock:
            if new and path in self._pending:
                raise FileExistsError(path)
            self._pending[path] = content
            # the record comes after the files beside it, so a commit ends with a record
            if len(self._pending) >= FILES and path.endswith(".json"):
                self._commit()

    def finish(self) -> None:
        """Commit what is left."""
        with self._lock:
            self._commit()

    def _commit(self) -> None:
        from huggingface_hub import CommitOperationAdd

        if not self._pending:
            return
        places = {path: self._fs.resolve_path(path) for path in self._pending}
        first = next(iter(places.values()))
        operations = [
            CommitOperationAdd(
                path_in_repo=place.path_in_repo,
                path_or_fileobj=content if isinstance(content, bytes) else str(content),
            )
            for place, content in zip(places.values(), self._pending.values(), strict=True)
        ]
        made = self._api.create_commit(
            repo_id=first.repo_id,
            repo_type=first.repo_type,
            revision=first.revision,
            operations=operations,
            parent_commit=self._parent,
            commit_message=f"Add {len(operations)} files of debiasbench",
        )
        self._fs.invalidate_cache()
        self._parent, self._pending = made.oid, {}
