"""A record says which code made it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from debiasbench.methods.erm import ERM
from debiasbench.models.mlp import MLP
from debiasbench.runs import provenance
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests.conftest import Toy
from tests.running import run


def test_a_record_has_the_digest_of_all_the_code_that_made_it(
    plugins: Plugins, tmp_path: Path
) -> None:
    spec = make_spec(plugins, method="erm", dataset="toy", training={"epochs": 1})
    record = run(spec, plugins, results=tmp_path, data_root=tmp_path, device="cpu").record
    assert record.provenance.code == provenance.code(Toy(), MLP(), ERM())


def test_the_digest_covers_every_part_and_ignores_a_part_that_is_not_there() -> None:
    assert provenance.code(ERM()) == provenance.code() == provenance.code(ERM(), None)
    assert provenance.code(Toy()) != provenance.code()


def test_the_code_of_a_plugin_is_known_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plugin_of_mine.py"
    file.write_text("class A: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("plugin_of_mine").A()
    before = provenance.code(mine)
    assert before == provenance.code(mine) != provenance.code()
    file.write_text("class A: x = 1\n")
    provenance._code.cache_clear()
    assert provenance.code(mine) != before
