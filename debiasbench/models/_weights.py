"""Download pretrained weights, with a clear error if that fails."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def fetching(name: str, *, wanted: bool) -> Iterator[None]:
    """Turn any exception inside into a `DataError`, if weights are `wanted`."""
    try:
        yield
    except Exception as error:
        if not wanted:
            raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError(
            f"The pretrained weights of {name} could not be downloaded ({reason}). "
            "Run once with a network connection, or leave out model.pretrained"
        ) from error
