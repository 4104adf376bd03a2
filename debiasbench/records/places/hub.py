"""Files for a repository of the Hugging Face hub, many in one commit, since commits are limited."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

FILES = 200  # in a commit


class Commits:
    """Collects files and commits them; a commit appears whole or not at all."""

    def __init__(self, fs: Any) -> None:
        self._fs, self._lock = fs, Lock()
        self._pending: dict[str, bytes | Path] = {}

    def write(self, path: str, content: bytes | Path, *, new: bool) -> None:
        """Add a file to the next commit; raises `FileExistsError` if it must be new and is not."""
        if new and (path in self._pending or self._fs.exists(path)):
            raise FileExistsError(path)
        with self._lock:
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
        self._fs._api.create_commit(
            repo_id=first.repo_id,
            repo_type=first.repo_type,
            revision=first.revision,
            operations=operations,
            commit_message=f"Add {len(operations)} files of debiasbench",
        )
        self._fs.invalidate_cache()
        self._pending = {}
