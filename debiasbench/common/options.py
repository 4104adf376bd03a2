"""Options are dataclass fields: declared with `option`, listed by `describe`, read by `parse`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from debiasbench.common.errors import OptionError, suggestion
from debiasbench.common.space import Space
from debiasbench.common.wording import listed, shortened, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

DEEPEST = 8  # lists within lists; no option has more
INTEGERS = range(-(2**63), 2**63)  # what tensors and generators of random numbers can hold

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def option(
    default: T,
    meaning: str = "",
    *,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    absent: object = dataclasses.MISSING,
    search: Space | None = None,
) -> T:
    """Declare an option: a dataclass field with a meaning and bounds.

    `density: float = option(0.05, "fraction of weights kept", gt=0, le=1)`. The bounds of a tuple
    apply to each of its items. A field without `option` is an option too, without a meaning and
    without bounds.

    `absent`: the value that a spec without this option means. Give it for an option that is added
    when records exist: an option with this value is left out of specs, so that the ids of those
    records stay valid. It is usually the default.

    `search`: the values that `debiasbench search` tries: `log(0.01, 0.5)`, `uniform(0, 1)` or
    `choice(10, 30, 80)`, see `debiasbench.common.space`. An option without it is not searched. It
    is no part of a spec.
    """
    given = {"gt": gt, "ge": ge, "lt": lt, "le": le}
    bounds = {name: value for name, value in given.items() if value is not None}
    metadata = {"meaning": meaning, "bounds": bounds, "absent": absent, "search": search}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class OptionInfo:
    """One option, as `debiasbench show` prints it."""

    name: str
    kind: str  # the type, such as "float" or "int | None", or the choices, such as "a | b"
    default: object
    range: str  # such as "> 0, <= 1"; empty without bounds
    meaning: str
    search: Space | None = None  # what `debiasbench search` tries; None: it is not searched


def describe(cls: type) -> list[OptionInfo]:
    """List the options of a dataclass in the order of its fields."""
    hints = _field_hints(cls)
    return [
        OptionInfo(
            name=f.name,
            kind=_kind(f.type, hints[f.name]),
            default=f.default,
            range=", ".join(f"{_SIGNS[b]} {v:g}" for b, v in f.metadata.get("bounds", {}).items()),
            meaning=f.metadata.get("meaning", ""),
            search=f.metadata.get("search"),
        )
        for f in dataclasses.fields(cls)
    ]


def spaces(cls: type) -> dict[str, Space]:
    """Return the search space of each option that has one, in the order of the fields."""
    return {o.name: bound(cls, o.name, o.search) for o in describe(cls) if o.search is not None}


def bound(cls: type, name: str, space: Space) -> Space:
    """Return a search space for an option of `cls`, whose numbers are those that it takes.

    Raises `OptionError` if the option does not take all values of the space.
    """
    if not isinstance(space, Space):
        raise OptionError(
            f"{name}: search={shown(space)} is not a search space. Write log(LOW, HIGH), "
            "uniform(LOW, HIGH) or choice(A, B, ...)"
        )
    hint = _field_hints(cls)[name]
    kinds = {hint, *get_args(hint)}
    if space.kind != "choice" and not kinds & {int, float}:
        raise OptionError(f"{name}: search={space} is for numbers. Write choice(A, B, ...)")
    for value in space.values:
        _, problems = _converted(cls, {name: value})
        if problems:
            raise OptionError(f"{name}: search={space} leaves the option's bounds: {problems[0]}")
    return space.for_option(whole=int in kinds and float not in kinds)


def _kind(written: object, hint: object) -> str:
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    members = get_args(hint)
    if any(get_origin(member) is Literal for member in members):  # "int | auto | None"
        return " | ".join("None" if m is type(None) else _kind(m, m) for m in members)
    return written if isinstance(written, str) else getattr(written, "__name__", str(written))


def parse(cls: type[T], values: Mapping[str, object], *, owner: str, show: bool = True) -> T:
    """Make a `cls` from `values`: convert strings from a command line, and check the bounds.

    `owner` names the owner of the options in messages, such as "method rest". `show`: whether
    `debiasbench show` knows the last word of it. Raises `OptionError` that names every bad option
    at once.
    """
    advice = f". See `debiasbench show {_name(owner)}`" if show else ""
    names = [f.name for f in dataclasses.fields(cast("Any", cls))]
    problems = [
        f"no option {shown(name)}.{suggestion(name, names)} Options: {listed(names)}"
        for name in values
        if name not in names
    ]
    given = {name: value for name, value in values.items() if name in names}
    converted, wrong = _converted(cast("Any", cls), given)
    problems += wrong
    if problems:
        raise OptionError(f"{owner}: {'; '.join(problems)}{advice}")
    try:
        return cls(**converted)
    except OptionError:
        raise
    except ValueError as error:  # from a check in the class itself
        raise OptionError(f"{owner}: {error}{advice}") from error


def _converted(cls: type, values: Mapping[str, object]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of all options, converted to their types, and what is wrong with them."""
    from pydantic import ValidationError

    schema = _schema(cls)
    given = {n: _literal(v, schema.model_fields[n].annotation) for n, v in values.items()}
    try:
        model = schema(**given)
    except ValidationError as error:
        return {}, [_problem(e, schema) for e in error.errors()]
    converted = {f.name: getattr(model, f.name) for f in dataclasses.fields(cls)}
    problems = [
        f"{name}={shown(value)}: {reason}"
        for name, value in converted.items()
        if (reason := _unfit(value))
    ]
    return converted, problems


def _problem(error: Mapping[str, Any], schema: type[Any]) -> str:
    """Return what is wrong with one option, from an error of pydantic."""
    name, reason = str(error["loc"][0]), error["msg"]
    reason = reason[:1].lower() + reason[1:]  # what follows may be names, whose case matters
    if error["type"] in ("tuple_type", "list_type"):
        default = schema.model_fields[name].default
        example = json.dumps(default or [1, 2], separators=(",", ":"), default=str)
        reason = f"must be a list in brackets, such as {shortened(example)}"
    return f"{_place(error['loc'])}={shown(error['input'])}: {reason}"


def _unfit(value: object, depth: int = 0) -> str:
    """Return why no spec can hold a value of the right type, or an empty string."""
    if depth > DEEPEST:
        return "is nested too deeply"
    if isinstance(value, (tuple, list)):
        return next(filter(None, (_unfit(item, depth + 1) for item in value)), "")
    if isinstance(value, int) and value not in INTEGERS:
        return "must be a whole number of at most 64 bits"
    if isinstance(value, str) and not _is_unicode(value):
        return "contains bytes that are not UTF-8"
    return ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # Python keeps invalid bytes of a command line as lone surrogates
        return False
    return True


def as_dict(options: object) -> dict[str, object]:
    """Return the options of a dataclass as plain data that JSON can hold.

    Options that have their `absent` value are left out.
    """
    values = dataclasses.asdict(cast("Any", options))
    for name, absent in _absent_values(type(options)).items():
        if values[name] == absent:
            del values[name]
    plain: dict[str, object] = json.loads(json.dumps(values, default=str))  # str for paths
    return plain


def from_dict(cls: type[T], values: Mapping[str, object], *, owner: str) -> T:
    """Make a `cls` from what `as_dict` returned; options that are left out are `absent`.

    Raises `OptionError` as `parse` does.
    """
    return parse(cls, {**_absent_values(cls), **values}, owner=owner)


def _absent_values(cls: type) -> dict[str, object]:
    declared = {
        f.name: f.metadata.get("absent", dataclasses.MISSING) for f in dataclasses.fields(cls)
    }
    return {name: value for name, value in declared.items() if value is not dataclasses.MISSING}


def check_is_options(cls: type) -> None:
    """Raise `OptionError` if an option lacks a valid default, or a name is not an option.

    The second happens when a subclass of a dataclass lacks the `@dataclass` line.
    """
    hashable: Any = cls
    _check(hashable)


@functools.cache  # a grid of 100,000 runs asks as often
def _check(cls: type) -> None:
    if not dataclasses.is_dataclass(cls):
        raise OptionError(f"{cls.__qualname__} is not a dataclass: write @dataclass above it")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name, field in fields.items():
        if field.default is dataclasses.MISSING:
            raise OptionError(
                f"{cls.__qualname__}.{name} needs a default value, since every option is optional"
            )
    for name, annotation in inspect.get_annotations(cls).items():
        if name not in fields and "ClassVar" not in str(annotation):
            raise OptionError(
                f"{cls.__qualname__}.{name} is not an option yet: write @dataclass above the class"
            )
    _, problems = _converted(cls, {name: field.default for name, field in fields.items()})
    if problems:
        raise OptionError(f"the default {'; '.join(problems)}")
    spaces(cls)


@functools.cache  # building a schema takes 10 ms, and a suite needs it hundreds of times
def _schema(cls: type) -> type[Any]:
    from pydantic import ConfigDict, Field, create_model

    hints = _field_hints(cls)
    fields: dict[str, Any] = {
        f.name: (_bounded(hints[f.name], Field(**f.metadata.get("bounds", {}))), f.default)
        for f in dataclasses.fields(cls)
    }
    config = ConfigDict(allow_inf_nan=False, protected_namespaces=())
    schema: type[Any] = create_model(cls.__name__, __config__=config, **fields)
    return schema


def _bounded(hint: Any, bounds: Any) -> Any:
    """Add bounds to a type; in a union with literals, to its numbers; in a tuple, to each item."""
    members = get_args(hint)
    if get_origin(hint) is tuple and members[-1] is Ellipsis:
        return cast("Any", tuple)[Annotated[members[0], bounds], ...]
    if not any(get_origin(member) is Literal for member in members):
        return Annotated[hint, bounds]
    numbers = (int, float)
    return Union[tuple(Annotated[m, bounds] if m in numbers else m for m in members)]  # noqa: UP007


def _field_hints(cls: type) -> dict[str, Any]:
    """Resolve the annotations of fields only: others may use names imported for type checkers."""
    fields = {f.name for f in dataclasses.fields(cls)}
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        written = {n: a for n, a in inspect.get_annotations(base).items() if n in fields}
        # names in annotations are those of the module that defines the class
        stand_in = type(
            base.__name__, (), {"__annotations__": written, "__module__": base.__module__}
        )
        hints |= get_type_hints(stand_in, include_extras=True)
    return hints


def _literal(value: object, hint: Any) -> object:
    """Read `none` and `[1, 2]` from a command line; the schema reads everything else."""
    if isinstance(value, str):
        if value.lower() == "none" and type(None) in get_args(hint):
            return None
        if value.startswith("["):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):  # the first also for an integer of 5,000 digits
                return value
    return value


def _place(location: tuple[int | str, ...]) -> str:
    """Name an option and the index within it, without the members of unions that pydantic adds."""
    return ".".join(str(part) for i, part in enumerate(location) if not i or isinstance(part, int))


def _name(owner: str) -> str:
    return owner.rsplit(" ", 1)[-1]
