"""`debiasbench list` and `show`: everything registered, and its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from click.testing import Result

from debiasbench import Method
from tests.conftest import offering

Cli = Callable[..., Result]


@dataclass(frozen=True)
class Documented(Method):
    """A method of acme."""

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), name="train")


def test_list_names_everything_and_where_it_comes_from(debiasbench: Cli) -> None:
    result = debiasbench("list", extra=(offering(mine=Documented),))
    lines = result.stdout.splitlines()
    headings = [line.split()[0] for line in lines if line.split()[1:] == ["from"]]
    assert headings == ["datasets", "models", "methods", "sparsifiers"]
    mine = next(line for line in lines if line.startswith("mine"))
    assert mine.split("  ")[-1].strip() == "A method of acme."
    assert "acme 1.0" in mine
    only_models = debiasbench("list", "models").stdout
    assert "timm:NAME" in only_models
    assert "groupdro" not in only_models


def test_show_lists_options_citation_and_supervision(debiasbench: Cli) -> None:
    shown = debiasbench("show", "rest").stdout
    assert "Supervision: train=conflict, val=none" in shown
    assert "Cite: Zhao, Yin, Liu, Fang, Pechenizkiy." in shown
    density = next(line for line in shown.splitlines() if line.startswith("density"))
    assert density.split(maxsplit=3) == [
        "density",
        "float",
        "0.05",
        "> 0, <= 1   log(0.01, 0.5)          fraction of convolution and linear weights kept",
    ]


def test_show_knows_data_sets_models_and_training(debiasbench: Cli) -> None:
    assert "Licence: CC BY 4.0" in debiasbench("show", "digits").stdout
    assert "hidden" in debiasbench("show", "mlp").stdout
    assert "weight_decay" in debiasbench("show", "training").stdout
