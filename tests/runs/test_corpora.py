"""Runs on MultiNLI and CivilComments, from files of their shape to a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from debiasbench import hookimpl
from debiasbench.cli import main
from debiasbench.common.errors import DataError
from debiasbench.records.store import read_predictions
from debiasbench.runs.session import Session
from debiasbench.specs.plugins import Plugins
from tests.conftest import ACME
from tests.datasets.corpora import (
    IDENTITIES,
    civilcomments,
    comment_rows,
    multinli,
    nli_rows,
    released_split,
)
from tests.runs.test_texts import BagOfWords, Words

SHORT = {"epochs": 1, "batch_size": 32}


@dataclass(frozen=True)
class Beginnings(Words):
    """Reads at most seven letters of a word."""

    @property
    def key(self) -> dict[str, object]:
        return {"name": "beginnings", "most": self.most}

    def __call__(self, samples: Sequence[tuple[str, ...]]) -> dict[str, torch.Tensor]:
        cut = [tuple(" ".join(w[:7] for w in text.split()) for text in some) for some in samples]
        return super().__call__(cut)


@dataclass(frozen=True)
class Bag(BagOfWords):
    """Reads the beginnings of words."""

    def tokenizer(self) -> Beginnings:
        return Beginnings(self.most)


class BagPlugin:
    """Offers the model."""

    @hookimpl
    def debiasbench_register_models(self, register: Callable[..., None]) -> None:
        register("words", Bag)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(
        Plugins([(BagPlugin(), ACME)]),
        data_root=tmp_path / "data",
        results=tmp_path / "results",
        device="cpu",
        progress=None,
    )


def run(session: Session, method: str, dataset: str, model: str = "words", **choices: Any) -> Any:
    spec = session.spec(method, dataset, model=model, training=SHORT, **choices)
    return session.run(spec).record


@pytest.mark.parametrize("method", ["groupdro", "rest"])
def test_a_record_of_multinli_has_its_split_its_groups_and_the_settings_of_group_dro(
    session: Session, method: str
) -> None:
    rows = nli_rows()
    folder = multinli(session.data_root, rows)
    seeded = run(session, method, "multinli")
    table = released_split(folder, rows)
    released = run(session, method, "multinli")
    assert seeded.spec.dataset.options["split"] == "seeded"
    assert released.spec.dataset.options["split"] == "released"
    assert seeded.spec.id != released.spec.id
    assert seeded.task.fingerprint != released.task.fingerprint
    settings = released.spec.training
    assert (settings["optimizer"], settings["lr"], settings["schedule"]) == (
        "adamw",
        2e-5,
        "linear",
    )
    test = [(y, b) for _, y, b, split in table if split == 2]
    counts = [sum((y, b) == (c, v) for y, b in test) for c in range(3) for v in range(2)]
    assert released.task.group_counts["test"] == counts


def test_an_identity_is_part_of_the_record(session: Session) -> None:
    civilcomments(session.data_root)
    record = run(session, "jtt", "civilcomments", dataset_options={"bias": "black"})
    assert record.task.biases == ["black=0", "black=1"]
    assert record.task.metric == "worst_group"


def test_the_sixteen_groups_of_wilds_are_those_of_an_independent_count(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = comment_rows()
    civilcomments(session.data_root, rows)
    record = run(session, "erm", "civilcomments")
    (path,) = session.store.folder.glob("*.json")
    words = ["results", "attributes", str(path), "--data-root", str(session.data_root)]

    def called() -> Any:
        return CliRunner().invoke(main, words, obj=session.plugins)

    told = called()
    assert told.exit_code == 0, told.output
    test = [row for row in rows if row["split"] == "test"]
    stored = read_predictions(path, record, "val_worst_group", "test")
    right = (stored["y"] == stored["predicted"]).tolist()
    expected = []
    for name in IDENTITIES:
        for number, label in enumerate(("non_toxic", "toxic")):
            own = [
                ok
                for row, ok in zip(test, right, strict=True)
                if float(row[name]) >= 0.5 and (float(row["toxicity"]) >= 0.5) == bool(number)
            ]
            value = f"{100 * sum(own) / len(own):.1f}" if own else "—"
            expected.append([name, label, str(len(own)), value])
    lines = told.stdout.splitlines()
    assert [line.split() for line in lines[2:18]] == expected
    worst = min(float(value) for *_, value in expected if value != "—")
    assert f", {worst:.1f} %, at the epoch of val_worst_group" in lines[-1]
    rows[0]["comment_text"] += "!"
    civilcomments(session.data_root, rows)
    changed = called()
    assert changed.exit_code == DataError("").exit_code
    assert "are not those of" in changed.stderr


def test_a_data_set_without_attributes_says_so(session: Session) -> None:
    multinli(session.data_root, nli_rows())
    run(session, "erm", "multinli")
    (path,) = session.store.folder.glob("*.json")
    words = ["results", "attributes", str(path), "--data-root", str(session.data_root)]
    told = CliRunner().invoke(main, words, obj=session.plugins)
    assert told.exit_code == 2
    assert "multinli knows no attributes beside its bias" in told.stderr


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["multinli", "civilcomments"])
def test_rest_trains_a_bert_from_a_folder(session: Session, tmp_path: Path, dataset: str) -> None:
    pytest.importorskip("transformers")
    from tests.tiny_bert import save

    rows = nli_rows()
    released_split(multinli(session.data_root, rows), rows)
    civilcomments(session.data_root)
    record = run(
        session, "rest", dataset, f"hf:{save(tmp_path / 'bert')}", model_options={"max_length": 48}
    )
    assert record.status == "ok"
    assert 0 < record.outcomes["last"].test.metrics["average"] <= 1
