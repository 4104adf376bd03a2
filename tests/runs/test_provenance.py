"""A record says which code made it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.methods.erm import ERM
from debiasbench.models.mlp import MLP
from debiasbench.runs import provenance
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests.conftest import ACME, Toy, ToyPlugin
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


def test_the_code_of_a_package_without_init_is_known_by_its_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "acme_without_init"
    folder.mkdir()
    file = folder / "mixes.py"
    file.write_text("class A: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("acme_without_init.mixes").A()
    before = provenance.code(mine)
    provenance._code.cache_clear()  # as in another process
    assert provenance.code(mine) == before != provenance.code()
    file.write_text("class A: x = 1\n")
    provenance._code.cache_clear()
    assert provenance.code(mine) != before


MINE = """
from dataclasses import dataclass
from debiasbench import Method, hookimpl

@dataclass(frozen=True)
class Mine(Method):
    def fit(self, lab):
        return lab.train(lab.model(), name="train")

@hookimpl
def debiasbench_register_methods(register):
    register("mine", Mine)
"""


def test_what_is_already_done_says_that_the_code_of_its_plugin_has_changed(
    debiasbench: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plugin_that_changes.py"
    file.write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    extra = (importlib.import_module("plugin_that_changes"),)
    run = ("run", "--method", "mine", "--dataset", "toy")
    compare = ("compare", "mine", "--dataset", "toy", "--seeds", "0")
    said = "The code of acme 1.0 has changed since then: a new run may give another result"
    assert said not in debiasbench(*run, extra=extra).stdout
    again = debiasbench(*run, extra=extra).stdout
    assert "Already done on " in again
    assert said not in again
    assert "another version of the code" not in debiasbench(*compare, extra=extra).stderr
    file.write_text(MINE + "# another line\n")
    provenance._code.cache_clear()
    assert said in debiasbench(*run, extra=extra).stdout
    assert "Warning: 1 finished run used another version of the code of acme 1.0" in (
        debiasbench(*compare, extra=extra).stderr
    )
    fresh = debiasbench(*run, "--overwrite", "always", extra=extra).stdout
    assert "Already done" not in fresh
    assert said not in debiasbench(*run, extra=extra).stdout


def test_the_record_of_a_plugin_that_is_not_installed_now_is_shown(
    debiasbench: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin_that_goes.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    extra = (importlib.import_module("plugin_that_goes"),)
    debiasbench("run", "--method", "mine", "--dataset", "toy", extra=extra)
    (path,) = Path("results").glob("*.json")
    shown = debiasbench("run", "--spec", path)
    assert shown.exit_code == 0, shown.stderr
    assert "Already done on " in shown.stdout


def test_a_record_has_no_digest_of_what_is_builtin(tmp_path: Path) -> None:
    plugins = Plugins([(ToyPlugin(), ACME)])
    spec = make_spec(plugins, method="erm", dataset="toy")
    assert set(provenance.plugin_code(plugins, spec)) == {"dataset"}
    assert provenance.plugin_code(plugins, make_spec(plugins, method="erm")) == {}
