"""The command that makes a run again, from its spec."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from debiasbench.specs.words import as_text, short_name

if TYPE_CHECKING:
    from debiasbench.specs.spec import Spec

CONTINUED = " \\\n    "  # between lines of one command


def command(spec: Spec, between: str = " ") -> str:
    """Write the `debiasbench run` of a spec, for a POSIX shell.

    All options are in it, so that it does not depend on defaults. Revisions are not: a newer one of
    the code makes another spec. `between`: separates the parts of the run and the options of each.
    """
    options = {"method": spec.method, "dataset": spec.dataset, "model": spec.model}
    words = ["debiasbench", "run"]
    lines = [words]
    for kind, choice in options.items():
        words += [f"--{kind}", choice.name]
    if spec.sparse is not None:
        words += ["--sparse", spec.sparse.name]
        options["sparse"] = spec.sparse
    words += ["--seed", str(spec.seed)]
    # a spec without a precision means this one, and a GPU would choose another
    training = {"precision": "fp32"} | spec.training
    settings = {kind: choice.options for kind, choice in options.items()} | {"train": training}
    for scope, values in settings.items():
        pairs = [f"{short_name(f'{scope}.{n}')}={as_text(v)}" for n, v in sorted(values.items())]
        lines.append([word for pair in pairs for word in ("--set", pair)])
    return between.join(shlex.join(line) for line in lines if line)
