"""A spec as the command that runs it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from debiasbench.specs.words import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debiasbench.specs.spec import Spec


def command(spec: Spec) -> str:
    """Return the line that runs a spec, for a shell.

    All options are in it, so that it does not depend on defaults. Revisions are not: a newer one of
    the code makes another spec.
    """
    return shlex.join(["debiasbench", "run", *_words(spec)])


def _words(spec: Spec) -> Iterator[str]:
    yield from ("--method", spec.method.name, "--dataset", spec.dataset.name)
    yield from ("--model", spec.model.name, "--seed", str(spec.seed))
    if spec.sparse is not None:
        yield from ("--sparse", spec.sparse.name)
    training = {"precision": "fp32", **spec.training}
    scopes = [("", spec.method.options), ("dataset.", spec.dataset.options)]
    scopes += [("model.", spec.model.options), ("train.", training)]
    if spec.sparse is not None:
        scopes.append(("sparse.", spec.sparse.options))
    for scope, options in scopes:
        for name, value in options.items():
            yield from ("--set", f"{scope}{name}={as_text(value)}")
