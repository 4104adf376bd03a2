"""A record says which code made it."""

from __future__ import annotations

from pathlib import Path

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
