"""Settings of an updater: dataclass fields with a meaning and bounds, and their check."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from debiasbench.sparsity.errors import SparsityError, unknown

T = TypeVar("T")

_HOLDS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "gt": (lambda value, bound: value > bound, ">"),
    "ge": (lambda value, bound: value >= bound, ">="),
    "lt": (lambda value, bound: value < bound, "<"),
    "le": (lambda value, bound: value <= bound, "<="),
}


def setting(default: T, meaning: str, **bounds: float) -> T:
    """Declare a setting with its meaning; `bounds`: gt, ge, lt, le."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "bounds": bounds})


def changed(cls: type, name: str, default: T) -> T:
    """Declare a setting of the parent class `cls` again, with another default."""
    (field,) = [f for f in dataclasses.fields(cls) if f.name == name]
    return dataclasses.field(default=default, metadata=field.metadata)


def check(settings: Any) -> None:
    """Raise `SparsityError` for the first setting outside its bounds or choices."""
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        hint = hints[field.name]
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise unknown(field.name, value, get_args(hint))
        for kind, bound in field.metadata.get("bounds", {}).items():
            holds = _HOLDS[kind][0]
            if isinstance(value, str) or not math.isfinite(value) or not holds(value, bound):
                limits = " and ".join(
                    f"{_HOLDS[k][1]} {b:g}" for k, b in field.metadata["bounds"].items()
                )
                raise SparsityError(f"{field.name} is {value}, but must be {limits}")
