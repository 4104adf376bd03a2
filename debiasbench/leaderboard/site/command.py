"""The command that makes a run again, from its spec."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from debiasbench.common.names import IMPORTED
from debiasbench.specs.words import as_text, short_name

if TYPE_CHECKING:
    from debiasbench.specs.spec import Spec


def command(spec: Spec, *, seed: bool = True) -> str:
    """Write the `debiasbench run` of a spec, with all its options, for a POSIX shell."""
    options = {"method": spec.method, "dataset": spec.dataset, "model": spec.model}
    words = ["debiasbench", "run"]
    for kind, choice in options.items():
        words += [f"--{kind}", choice.name.removeprefix(IMPORTED)]
    if spec.sparse is not None:
        words += ["--sparse", spec.sparse.name]
        options["sparse"] = spec.sparse
    if seed:
        words += ["--seed", str(spec.seed)]
    settings = {
        short_name(f"{kind}.{name}"): value
        for kind, choice in options.items()
        for name, value in sorted(choice.options.items())
    }
    # a spec without a precision means this one, and a GPU would choose another
    training = {"precision": "fp32"} | spec.training
    settings |= {f"train.{name}": value for name, value in sorted(training.items())}
    for name, value in settings.items():
        words += ["--set", f"{name}={as_text(value)}"]
    return " ".join(map(shlex.quote, words))
