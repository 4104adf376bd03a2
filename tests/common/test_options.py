"""Options: types, bounds, and errors that name every mistake at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from debiasbench.common.errors import OptionError
from debiasbench.common.options import (
    OptionInfo,
    as_dict,
    check_is_options,
    describe,
    from_dict,
    option,
    parse,
)


@dataclass(frozen=True)
class Knobs:
    density: float = option(0.1, "fraction of weights kept", gt=0, le=1)
    steps: int = option(3, ge=1)
    mode: Literal["a", "b"] = "a"
    limit: float | None = None
    sizes: tuple[int, ...] = (4, 2)
    flag: bool = True
    note: str = ""


@pytest.mark.parametrize(
    ("name", "typed", "expected"),
    [
        ("density", "0.5", 0.5),
        ("density", "1", 1.0),
        ("steps", "7", 7),
        ("mode", "b", "b"),
        ("limit", "none", None),
        ("limit", "2", 2.0),
        ("sizes", "[8, 8]", (8, 8)),
        ("flag", "false", False),
    ],
)
def test_a_string_from_the_command_line_becomes_the_fields_type(
    name: str, typed: str, expected: object
) -> None:
    value = getattr(parse(Knobs, {name: typed}, owner="method knobs"), name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("density", "0", "density='0': input should be greater than 0"),
        ("density", "1.01", "density='1.01': input should be less than or equal to 1"),
        ("density", "nan", "density='nan': input should be a finite number"),
        ("density", "much", "density='much': input should be a valid number"),
        ("steps", 1.5, "steps=1.5: input should be a valid integer"),
        ("mode", "c", "mode='c': input should be 'a' or 'b'"),
        ("sizes", "[8", "sizes='[8': must be a list in brackets, such as [4,2]"),
        ("sizes", "8,8", "sizes='8,8': must be a list in brackets, such as [4,2]"),
        ("sizes", "[" * 5000, "[[[': must be a list in brackets, such as [4,2]"),
        ("sizes", "[1,[2]]", "sizes.1=[2]: input should be a valid integer"),
        ("sizes", f"[{2**63}]", "must be a whole number of at most 64 bits"),
        ("sizes", f"[{'9' * 5000}]", "must be a list in brackets, such as [4,2]"),
        ("steps", str(2**63), "must be a whole number of at most 64 bits"),
        ("steps", "9" * 5000, "unable to parse input string as an integer, exceeded maximum size"),
        ("density", "1e999", "density='1e999': input should be a finite number"),
        ("note", "\udcff", "note='\\udcff': "),
        ("x" * 1000, "1", "no option 'xxx"),
        ("densty", "1", "no option 'densty'. Did you mean 'density'?"),
    ],
)
def test_a_bad_value_is_refused_with_the_reason(name: str, value: object, complaint: str) -> None:
    with pytest.raises(OptionError) as error:
        parse(Knobs, {name: value}, owner="method knobs")
    assert complaint in str(error.value)
    assert "See `debiasbench show knobs`" in str(error.value)
    assert len(str(error.value)) < 300


def test_all_bad_values_are_named_in_one_go() -> None:
    with pytest.raises(OptionError) as error:
        parse(Knobs, {"density": 2, "steps": 0, "other": 1}, owner="method knobs")
    assert all(name in str(error.value) for name in ("density", "steps", "other"))


def test_describe_lists_type_default_range_and_meaning() -> None:
    assert describe(Knobs)[0] == OptionInfo(
        name="density",
        kind="float",
        default=0.1,
        range="> 0, <= 1",
        meaning="fraction of weights kept",
    )


def test_an_option_without_a_default_is_an_error() -> None:
    @dataclass(frozen=True)
    class Needy:
        extra: int

    with pytest.raises(OptionError, match="extra needs a default"):
        check_is_options(Needy)


def test_a_forgotten_dataclass_line_is_an_error_and_not_a_lost_option() -> None:
    class Forgotten(Knobs):
        extra: int = 1

    with pytest.raises(OptionError, match="extra is not an option yet: write @dataclass"):
        check_is_options(Forgotten)


def test_a_default_out_of_its_bounds_is_a_mistake_of_the_class() -> None:
    @dataclass(frozen=True)
    class Illegal:
        alpha: float = option(-1.0, gt=0)
        mode: Literal["a", "b"] = "c"  # type: ignore[assignment]

    with pytest.raises(OptionError, match=r"the default alpha=-1.0: .* than 0; mode='c': "):
        check_is_options(Illegal)


@dataclass(frozen=True)
class Anything:
    value: Any = None


def test_values_that_are_nested_too_deeply_are_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(OptionError, match=r"value=\[\[...\]\]: is nested too deeply"):
        parse(Anything, {"value": value}, owner="method anything")


@dataclass(frozen=True)
class Grown:
    old: int = option(1)
    new: int = option(2, absent=2)
    size: int | None = option(None, absent=None)
    mode: Literal["auto", "fast", "slow"] = option("auto", absent="slow")


@pytest.mark.parametrize(
    ("options", "written"),
    [
        (Grown(mode="slow"), {"old": 1}),
        (Grown(new=3, mode="slow"), {"old": 1, "new": 3}),
        (Grown(size=0, mode="fast"), {"old": 1, "size": 0, "mode": "fast"}),
        (Grown(), {"old": 1, "mode": "auto"}),
    ],
)
def test_an_option_stays_out_of_specs_at_the_value_that_its_absence_means(
    options: Grown, written: dict[str, object]
) -> None:
    assert as_dict(options) == written
    assert from_dict(Grown, written, owner="method grown") == options


def test_an_option_that_a_person_leaves_out_has_its_default_and_not_its_absent_value() -> None:
    assert parse(Grown, {}, owner="method grown") == Grown()
    assert from_dict(Grown, {}, owner="method grown") == Grown(mode="slow")


def test_options_that_are_read_back_are_checked_too() -> None:
    with pytest.raises(OptionError, match=r"method grown: no option 'odl'. Did you mean 'old'?"):
        from_dict(Grown, {"odl": 1}, owner="method grown")
