"""What a `Download` may declare."""

from __future__ import annotations

from typing import Any

import pytest

from debiasbench.common.errors import DataError
from debiasbench.core.download import Download


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "/etc/x"}, "'/etc/x' must be relative"),
        ({"path": "../x"}, "'../x' must be relative"),
        ({"path": "a//x"}, "'a//x' must be relative"),
        ({"path": ""}, "'' must be relative"),
        ({"path": r"a\x"}, "must be relative"),
        ({"gives": ("a/../../x",)}, "'a/../../x' must be relative"),
        ({"into": ".."}, "'..' must be relative"),
        ({"unpack": "zip"}, "does not list the files in the archive"),
        ({"sha256": "abc"}, "sha256='abc' is not a SHA-256"),
        ({"urls": ("http://example.org/x",)}, "must start with https:// or file://"),
        ({"urls": ("ftp://example.org/x",)}, "must start with https:// or file://"),
    ],
)
def test_an_unsafe_declaration_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        Download(**{"path": "x", "urls": ("https://example.org/x",), **fields})
    assert message in str(error.value)
