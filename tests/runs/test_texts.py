"""Texts through a model's tokenizer, its cache, batches of their own width, and a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from debiasbench import Dataset, Model, Shape, Split, Task, hookimpl
from debiasbench.common.errors import DataError
from debiasbench.core.texts import Texts
from debiasbench.files import token_cache
from debiasbench.runs.session import Session
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.training import placed, prefetch
from tests.conftest import ACME

calls: list[int] = []


def sentences(n: int, conflicting: float, rng: torch.Generator) -> Split:
    """The class is the first word; the bias is whether the sentence is long."""
    y = torch.arange(n) % 2
    bias = torch.where(torch.rand(n, generator=rng) < conflicting, 1 - y, y)
    bias[:4], y[:4] = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    words = [3 + 20 * int(b) + int(torch.randint(5, (), generator=rng)) for b in bias]
    texts = [("yes" if c else "no") + " word" * w for c, w in zip(y.tolist(), words, strict=True)]
    return Split(Texts.of((text,) for text in texts), y, bias, 2)


@dataclass(frozen=True)
class Sentences(Dataset):
    """Texts."""

    training = {"epochs": 3, "batch_size": 16, "lr": 0.3}  # noqa: RUF012 - as plugins write it
    model = "words"

    def load(self, root: Path) -> Task:
        rng = torch.Generator().manual_seed(0)
        splits = (sentences(160, 0.2, rng), sentences(40, 0.5, rng), sentences(80, 0.5, rng))
        return Task(*splits, ("no", "yes"), ("short", "long"), torch.eye(2, dtype=torch.bool))


@dataclass(frozen=True)
class Words:
    """A tokenizer: each word has the number of its letters."""

    most: int

    @property
    def key(self) -> dict[str, object]:
        return {"name": "words", "most": self.most}

    def __call__(self, samples: Sequence[tuple[str, ...]]) -> dict[str, torch.Tensor]:
        calls.append(len(samples))
        words = [[word for text in some for word in text.split()] for some in samples]
        rows = [[len(word) for word in some][: self.most] for some in words]
        ids = torch.zeros(len(rows), self.most, dtype=torch.int32)
        for row, own in zip(ids, rows, strict=True):
            row[: len(own)] = torch.tensor(own)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int32)
        return {"ids": ids, "length": lengths}


class Bag(nn.Module):
    """The mean of the embeddings of all words, and the first of them."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 16)
        self.fc = nn.Linear(32, classes)
        self.widths: set[int] = set()

    def forward(self, x: dict[str, torch.Tensor]) -> Any:
        ids, length = x["ids"], x["length"]
        widths.add(ids.shape[1])
        mask = (torch.arange(ids.shape[1], device=ids.device) < length[:, None]).float()[:, :, None]
        embedded = self.embed(ids) * mask
        return self.fc(torch.cat([embedded[:, 0], embedded.sum(1) / mask.sum(1)], 1))


widths: set[int] = set()


@dataclass(frozen=True)
class BagOfWords(Model):
    """Reads words."""

    most: int = 30

    def build(self, shape: Shape) -> nn.Module:
        return Bag(shape.classes)

    def tokenizer(self) -> Words:
        return Words(self.most)


class TextPlugin:
    """Offers both."""

    @hookimpl
    def debiasbench_register_datasets(self, register: Callable[..., None]) -> None:
        register("sentences", Sentences)

    @hookimpl
    def debiasbench_register_models(self, register: Callable[..., None]) -> None:
        register("words", BagOfWords)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    calls.clear()
    widths.clear()
    plugins = Plugins([(TextPlugin(), ACME)])
    return Session(
        plugins, data_root=tmp_path, results=tmp_path / "results", device="cpu", progress=None
    )


def spec(session: Session, method: str = "erm", **choices: Any) -> Any:
    return session.resolve(
        make_spec(session.plugins, method=method, dataset="sentences", **choices)
    )


@pytest.mark.parametrize("method", ["erm", "groupdro", "jtt"])
def test_methods_train_on_texts_and_the_record_has_the_fingerprint_of_the_texts(
    session: Session, method: str
) -> None:
    record = session.run(spec(session, method)).record
    assert record.outcomes["last"].test.metrics["average"] > 0.8
    assert record.task.fingerprint == Sentences().load(Path()).fingerprint()


def test_batches_are_as_wide_as_their_longest_text_in_steps_of_8(session: Session) -> None:
    session.run(spec(session, training={"batch_size": 2, "epochs": 1}))
    assert widths - {16} == {8, 24, 28}  # the longest has 28 words


def test_widths_change_no_result(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed = session.run(spec(session), keep_weights=True).record
    monkeypatch.setattr(placed, "STEP", 1000)  # then no batch is cut
    whole = session.run(spec(session), overwrite="always", keep_weights=True).record
    assert trimmed.outcomes == whole.outcomes


def test_streamed_texts_give_the_same_weights(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = session.run(spec(session), keep_weights=True).record
    session.close()
    monkeypatch.setattr(prefetch, "fits", lambda *_: False)
    monkeypatch.setattr(placed, "fits", lambda *_: False)
    streamed = session.run(spec(session), overwrite="always", keep_weights=True).record
    assert streamed.weights == resident.weights


def test_texts_are_tokenised_once_for_each_tokenizer(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "CHUNK", 100)
    session.run(spec(session))
    assert calls == [100, 60, 40, 80]
    session.run(spec(session, "groupdro"))
    session.close()  # another process
    session.run(spec(session, "jtt"))
    assert len(calls) == 4
    session.run(spec(session, model_options={"most": 5}))
    assert len(calls) == 8


def test_kept_tokens_have_the_metric_and_the_rule_of_the_data_set_as_it_is_now(
    tmp_path: Path,
) -> None:
    task = Sentences().load(tmp_path)
    first = token_cache.tokenised(task, "a", Words(8), tmp_path)
    now = replace(task, metric="worst_group", select="val_worst_group")
    kept = token_cache.tokenised(now, "a", Words(8), tmp_path)
    assert (first.metric, first.select) == (task.metric, task.select)
    assert (kept.metric, kept.select) == ("worst_group", "val_worst_group")


def test_a_damaged_cache_is_made_again_with_a_warning(session: Session, tmp_path: Path) -> None:
    session.run(spec(session))
    session.close()
    (folder,) = (tmp_path / "cache").glob("tokens-*")
    file = folder / "train-x-0.npy"
    file.write_bytes(file.read_bytes()[:-4] + b"\1\2\3\4")
    with pytest.warns(UserWarning, match="train-x-0.npy"):
        session.run(spec(session, "jtt"))
    assert len(calls) == 6


def test_a_model_without_a_tokenizer_says_which_models_have_one(session: Session) -> None:
    with pytest.raises(DataError, match="use --model hf:NAME"):
        session.run(spec(session, model="mlp"))
