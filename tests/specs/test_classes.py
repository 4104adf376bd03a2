"""Classes in place of names, from Python: no registration is needed."""

from __future__ import annotations

import linecache
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from debiasbench import Method, Session, compare, make_spec, option
from debiasbench.common.errors import OptionError
from debiasbench.methods.erm import ERM
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import instance
from tests.conftest import Toy


@dataclass(frozen=True)
class Slow(Method):
    """Trains with a small learning rate."""

    rate: float = option(1e-3, "learning rate", gt=0)

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), name="train", lr=self.rate)


def test_a_class_is_named_after_its_file_and_its_content(plugins: Plugins) -> None:
    spec = make_spec(plugins, method=Slow, dataset=Toy, method_options={"rate": 0.01})
    written = make_spec(plugins, method=f"{__file__}:Slow", method_options={"rate": 0.01})
    assert spec.method == written.method
    assert spec.method.name.startswith("test_classes.py:Slow@")
    assert isinstance(instance(plugins.methods, spec.method), Slow)
    assert spec.dataset.name == "toy"


def test_a_registered_class_has_its_registered_name(plugins: Plugins) -> None:
    assert make_spec(plugins, method=ERM).method.name == "erm"


def test_a_class_is_compared_with_registered_methods(plugins: Plugins, tmp_path: Path) -> None:
    with Session(plugins, results=tmp_path, data_root=tmp_path, device="cpu") as session:
        runs = compare(
            ["erm", Slow],
            dataset="toy",
            model="mlp",
            seeds=[0],
            settings={"train.epochs": 1},
            session=session,
        )
        assert (
            session.run(session.spec(Slow, Toy, model="mlp", training={"epochs": 1})).fresh is False
        )
    assert [name.partition("@")[0] for name in runs["method"]] == ["erm", "test_classes.py:Slow"]


def in_notebook(source: str) -> type:
    """Define a class as a notebook does: without a file, with its source in `linecache`."""
    module = ModuleType("cells")
    sys.modules["cells"] = module
    linecache.cache["<cell 1>"] = (len(source), None, source.splitlines(keepends=True), "<cell 1>")
    exec(compile(source, "<cell 1>", "exec"), vars(module))
    return module.Mine  # type: ignore[no-any-return]


CELL = """
from dataclasses import dataclass
from debiasbench import Method

@dataclass(frozen=True)
class Mine(Method):
    \"\"\"Trains once.\"\"\"

    def fit(self, lab):
        return lab.train(lab.model(), name="train")
"""


def test_a_class_of_a_notebook_is_named_after_its_source(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cells", ModuleType("cells"))
    names = [
        make_spec(plugins, method=in_notebook(source)).method.name
        for source in (CELL, CELL, CELL.replace('name="train"', 'name="other"'))
    ]
    assert names[0].startswith("notebook:Mine@")
    assert names[0] == names[1] != names[2]


def test_what_is_not_a_class_of_its_kind_is_refused(plugins: Plugins) -> None:
    with pytest.raises(OptionError, match=r"method=Slow\(rate=0.1\): give a name, or a class"):
        make_spec(plugins, method=Slow(rate=0.1))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"derives from debiasbench\.Method"):
        make_spec(plugins, method=Toy)  # type: ignore[arg-type]
    unreadable = type("Unreadable", (Slow,), {"__module__": "nowhere"})
    with pytest.raises(OptionError, match="The source of class Unreadable cannot be read"):
        make_spec(plugins, method=unreadable)
