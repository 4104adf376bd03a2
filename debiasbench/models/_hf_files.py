"""Read the parts of a transformers model from the hub or from a folder, with clear errors."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import DataError, OptionError
from debiasbench.common.wording import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INSTALL = 'pip install "debiasbench[text]"'
CONFIG = "config.json"


@dataclass(frozen=True)
class Source:
    """A model on the hub, or in a folder. `commit`: of the hub's repository, None is `main`."""

    name: str
    commit: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder, None for a name on the hub.

        Raises `DataError` if the folder is no model, and `OptionError` for a commit of a folder.
        """
        path = Path(self.name).expanduser()
        if not path.is_dir():
            if path.is_absolute() or self.name.startswith((".", "~")) or path.exists():
                raise DataError(
                    f"hf:{self.name}: there is no such folder. Give a folder in which "
                    "transformers saved a model, or a name on the hub"
                )
            return None
        if not (path / CONFIG).is_file():
            raise DataError(
                f"hf:{self.name}: the folder is no model of transformers: it has no {CONFIG}. "
                "Give a folder that `save_pretrained` has written"
            )
        if self.commit is not None:
            raise OptionError(
                f"model.commit={self.commit} has no effect with the folder hf:{self.name}: leave "
                "it out"
            )
        return path

    def stamp(self) -> tuple[object, ...]:
        """Return what changes when a file of the folder changes; () for a name on the hub."""
        if self.folder is None:
            return ()
        files = sorted(p for p in self.folder.iterdir() if p.is_file())
        return tuple((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files)

    def load(self, what: str, function: Callable[..., Any], **more: Any) -> Any:
        """Return `function(name, ...)` of transformers; raises `DataError`.

        `what`: what it reads, for errors. Code of the repository is never run. What is in the cache
        of the hub is used without a network connection; the rest is downloaded.
        """
        more = {"trust_remote_code": False, **more}
        with _quiet():
            if self.folder is not None:
                try:
                    return function(str(self.folder), local_files_only=True, **more)
                except Exception as error:
                    raise DataError(
                        f"hf:{self.name}: {what} cannot be read ({_reason(error)})"
                    ) from error
            more["revision"] = self.commit or "main"
            try:
                return function(self.name, local_files_only=True, **more)
            except Exception:  # not in the cache, or not completely
                pass
            try:
                return function(self.name, **more)
            except Exception as error:
                raise DataError(
                    f"hf:{self.name}: {what} could not be downloaded from the hub "
                    f"({_reason(error)}). Check the name, run once with a network connection, or "
                    "give a folder: hf:FOLDER"
                ) from error


def transformers(name: str) -> Any:
    """Return the library; raises `OptionError` if it is not installed."""
    try:
        import tokenizers  # noqa: F401
        import transformers as library
    except ImportError as error:
        raise OptionError(
            f"hf:{name} needs transformers and tokenizers, which are not installed: {INSTALL}"
        ) from error
    return library


@contextmanager
def _quiet() -> Iterator[None]:
    """Show neither the bars nor the reports of transformers, whose errors are enough."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _reason(error: Exception) -> str:
    line = next((part for part in str(error).splitlines() if part.strip()), "")
    return f"{type(error).__name__}: {shortened(line.strip(), 200)}"
