"""Messages of errors: a few close names, and a readable length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debiasbench.common.errors import UnknownNameError, close_names, suggestion
from debiasbench.common.wording import listed, shortened, shown

MANY = [f"resnet{n}" for n in range(2000)]


def test_few_names_are_all_listed() -> None:
    error = UnknownNameError("method", "rset", ["rest", "erm"])
    assert str(error) == "Unknown method 'rset'. Did you mean 'rest'? Available: erm, rest"


def test_of_many_names_only_close_ones_are_listed() -> None:
    message = str(UnknownNameError("model", "resnett18", MANY, "NAMES lists them"))
    assert message.startswith("Unknown model 'resnett18'. Did you mean 'resnet18', 'resnet")
    assert message.endswith("? 2,000 names are available. NAMES lists them")
    assert len(message) < 150


def test_a_name_without_a_similar_one_has_no_suggestion() -> None:
    message = str(UnknownNameError("model", "nosuchthing", MANY))
    assert message == "Unknown model 'nosuchthing'. 2,000 names are available"


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("RESNET18", ["ResNet18"]),  # another case is the same name
        ("resnet1", ["ResNet18", "resnet18d"]),
        ("vit", ["vit_tiny_patch16_224"]),
        ("zzz", []),
        ("", []),
        ("resnet" * 1000, []),
    ],
)
def test_close_names_are_similar_or_longer(name: str, close: list[str]) -> None:
    assert close_names(name, ["resnet18d", "vit_tiny_patch16_224", "ResNet18"], 3) == close


def test_a_suggestion_joins_several_names() -> None:
    assert suggestion("ab1", ["ab2", "ab3"], most=2) == " Did you mean 'ab3' or 'ab2'?"


@given(st.text(), st.integers(10, 50))
def test_a_shortened_text_keeps_its_ends(text: str, longest: int) -> None:
    short = shortened(text, longest)
    assert len(short) <= longest
    assert short == text or (short[0], short[-1]) == (text[0], text[-1])


@given(st.lists(st.text(st.characters(categories=["L"]), min_size=1, max_size=9)))
def test_a_list_of_names_has_a_readable_length(names: list[str]) -> None:
    assert len(listed(names, 30)) < 60
    assert listed(names, 10_000) == (", ".join(names) or "none")


def test_values_of_any_size_can_be_shown() -> None:
    assert shown("x") == "'x'"
    assert len(shown("x" * 5000)) <= 80
    assert shown(10**5000) == "<int that is too large to print>"
