"""`submission.toml`: who submits which method, its source code, and the licence."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from typing import Any

from debiasbench.common.wording import listed, shown

FILE = "submission.toml"
LICENCES = ("CC0-1.0", "CC-BY-4.0")
CLAIMS = ("authors", "reimplementation")
LONGEST = 500  # characters of a value
TODO = "TODO"
OWN = "debiasbench"  # the distribution of builtin methods, which need no source
_REQUIRED = {
    "who": "the name of the people who made the records",
    "contact": "an address at which they answer questions: e-mail, or a GitHub name",
    "licence": f"the licence of the records: {' or '.join(LICENCES)}",
    "claims": f"who wrote the code: {' or '.join(CLAIMS)}",
}
_OPTIONAL = {
    "suite": "the suite whose settings the records have; without one they are never verified",
    "changes": "which changes of debiasbench were not committed, if any",
}
_METHOD = {
    "distribution": "the name of the package that has the method",
    "version": "its version",
    "source": "an https address of its source code",
    "sha256": "the SHA-256 of its source distribution (sdist)",
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class About:
    """The content of `submission.toml`; optional values that are absent are empty."""

    who: str
    contact: str
    licence: str
    claims: str
    distribution: str
    version: str
    source: str = ""
    sha256: str = ""
    suite: str = ""
    changes: str = ""

    @property
    def origin(self) -> str:
        """The distribution and its version, as records name them."""
        return f"{self.distribution} {self.version}"


def parsed(text: str) -> tuple[About | None, list[str]]:
    """Read the text of a `submission.toml`; return it, or None and what is wrong with it."""
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        return None, [f"{FILE} is not valid TOML ({error})"]
    method = data.pop("method", {})
    if not isinstance(method, dict):
        return None, [f"{FILE}: method must be a table, [method]"]
    needed = {name: text for name, text in _METHOD.items() if not _is_builtin(method) or _own(name)}
    problems = [
        *_problems(data, _REQUIRED, _OPTIONAL, ""),
        *_problems(method, needed, _METHOD, "method."),
    ]
    if problems:
        return None, problems
    about = About(**data, **method)
    problems = list(_wrong(about))
    return (None if problems else about), problems


def _is_builtin(method: dict[str, Any]) -> bool:
    return method.get("distribution") == OWN


def _own(name: str) -> bool:
    return name in {"distribution", "version"}


def _problems(
    data: dict[str, Any], required: dict[str, str], optional: dict[str, str], where: str
) -> list[str]:
    problems = []
    known = {**required, **optional}
    if unknown := [name for name in data if name not in known]:
        problems.append(
            f"{FILE}: unknown {listed([where + n for n in unknown])}. Known: {listed(known)}"
        )
    for name, meaning in known.items():
        value = data.get(name)
        if name in required and (value in (None, "") or _is_to_do(value)):
            problems.append(f"{FILE}: {where}{name} is missing. Write {meaning}")
        elif value is not None and (not isinstance(value, str) or len(value) > LONGEST):
            problems.append(
                f"{FILE}: {where}{name} = {shown(value)}: must be a text of at most {LONGEST} "
                "characters"
            )
        elif isinstance(value, str) and _is_to_do(value):
            problems.append(
                f"{FILE}: {where}{name} is not filled in. Write {meaning}, or remove it"
            )
    return problems


def _is_to_do(value: object) -> bool:
    return isinstance(value, str) and value.strip() == TODO


def _wrong(about: About) -> list[str]:
    problems = []
    for name, allowed in (("licence", LICENCES), ("claims", CLAIMS)):
        if getattr(about, name) not in allowed:
            problems.append(
                f"{FILE}: {name} = {shown(getattr(about, name))}: must be {' or '.join(allowed)}"
            )
    if about.source and not about.source.startswith("https://"):
        problems.append(f"{FILE}: method.source = {shown(about.source)}: must begin with https://")
    if about.sha256 and not _SHA256.fullmatch(about.sha256):
        problems.append(
            f"{FILE}: method.sha256 = {shown(about.sha256)}: must be 64 hexadecimal digits, as "
            "`sha256sum FILE.tar.gz` prints them"
        )
    return problems


def template(values: dict[str, str]) -> str:
    """Write a `submission.toml` with the values that are known, and TODO for the others."""
    lines = []
    for name, meaning in {**_REQUIRED, **_OPTIONAL}.items():
        if name in _REQUIRED or values.get(name):
            lines += [f"# {meaning}", f"{name} = {json.dumps(values.get(name) or TODO)}"]
    lines += ["", "[method]"]
    own = values.get("distribution") == OWN
    for name, meaning in _METHOD.items():
        if not own or _own(name):
            lines += [f"# {meaning}", f"{name} = {json.dumps(values.get(name) or TODO)}"]
    return "\n".join(lines) + "\n"
