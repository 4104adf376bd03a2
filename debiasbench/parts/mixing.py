"""Inputs that can be mixed: real numbers, such as images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError

if TYPE_CHECKING:
    from debiasbench.core.model import Shape


def check_mixable(shape: Shape, owner: str) -> None:
    """Raise `OptionError` for named inputs, such as token ids, which have no weighted mean.

    `owner`: name of the method in the message.
    """
    if shape.inputs:
        raise OptionError(
            f"method {owner} mixes inputs that are real numbers, such as images, but these are "
            f"named tensors: {', '.join(shape.inputs)}. Use another method"
        )
