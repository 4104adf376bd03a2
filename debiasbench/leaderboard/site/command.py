"""The command that makes a run again, from its spec."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from debiasbench.common.names import IMPORTED
from debiasbench.specs.words import as_text, short_name

if TYPE_CHECKING:
    from debiasbench.specs.spec import Spec


def command(spec: Spec) -> str:
    """Write the `debiasbench run` of a spec, with all its options, for a POSIX shell."""
    options = {"method": spec.method, "dataset": spec.dataset, "model": spec.model}
    words = ["debiasbench", "run"]
    lines = [words]
    for kind, choice in options.items():
        words += [f"--{kind}", choice.name.removeprefix(IMPORTED)]
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
    return " \\\n    ".join(" ".join(map(shlex.quote, line)) for line in lines if line)
