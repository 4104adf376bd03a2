"""A two-layer BERT and a WordPiece of its own in a folder, and texts for it; without a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from debiasbench import Dataset, Split, Task, hookimpl
from debiasbench.core.texts import Texts

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["film", "book", "game", "meal", "song", "street", "river", "house", "doctor", "letter"]
GOOD, BAD = ["good", "great", "lovely"], ["bad", "awful", "boring"]


def word_piece(texts: Any, size: int = 300) -> Any:
    """Train a WordPiece as BERT uses it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=SPECIAL, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return made


def sentence(good: bool, polite: bool, rng: torch.Generator) -> str:
    """The class is whether it praises; the bias is whether it is polite."""

    def one(words: list[str]) -> str:
        return words[int(torch.randint(len(words), (), generator=rng))]

    manners = "thank you, " * int(torch.randint(1, 4, (), generator=rng)) if polite else ""
    return f"{manners}The {one(WORDS)} and the {one(WORDS)} were {one(GOOD if good else BAD)}!"


def split(n: int, conflicting: float, rng: torch.Generator, *, pairs: bool = False) -> Split:
    y = torch.arange(n) % 2
    bias = torch.where(torch.rand(n, generator=rng) < conflicting, 1 - y, y)
    y[:4], bias[:4] = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    texts = [
        (sentence(bool(c), bool(b), rng), *(["It is so."] if pairs else []))
        for c, b in zip(y.tolist(), bias.tolist(), strict=True)
    ]
    return Split(Texts.of(texts), y, bias, 2)


@dataclass(frozen=True)
class Reviews(Dataset):
    """Short texts."""

    training = {  # noqa: RUF012 - as plugins write it
        "epochs": 1,
        "batch_size": 16,
        "optimizer": "adamw",
        "lr": 0.003,
        "schedule": "linear",
        "warmup": 0.1,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
    }
    model = "mlp"

    n: int = 64
    pairs: bool = False

    def load(self, root: Path) -> Task:
        rng = torch.Generator().manual_seed(0)
        splits = [
            split(n, c, rng, pairs=self.pairs) for n, c in ((self.n, 0.3), (32, 0.5), (32, 0.5))
        ]
        return Task(*splits, ("bad", "good"), ("blunt", "polite"), torch.eye(2, dtype=torch.bool))


class ReviewsPlugin:
    """Offers the texts."""

    @hookimpl
    def debiasbench_register_datasets(self, register: Any) -> None:
        register("reviews", Reviews)


def texts(n: int = 200) -> list[str]:
    rng = torch.Generator().manual_seed(1)
    return [sentence(bool(i % 2), bool(i // 2 % 2), rng) for i in range(n)]


def save(folder: Path, *, kind: str = "bert", **changes: Any) -> Path:
    """Write a small model with random weights, and its tokenizer, as `save_pretrained` does."""
    fast = word_piece(texts())
    bert = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    sizes = {
        "bert": bert,
        "roberta": {**bert, "max_position_embeddings": 70, "pad_token_id": 1},
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "eos_token_id": 3},
        "llama": {**bert, "num_key_value_heads": 1, "pad_token_id": None},
        "albert": {**bert, "embedding_size": 16},
        "electra": {**bert, "embedding_size": 16},
        "deberta-v2": bert,
        "bart": {
            "d_model": 32,
            **{
                f"{part}_{n}": 2
                for part in ("encoder", "decoder")
                for n in ("layers", "attention_heads")
            },
            **{f"{part}_ffn_dim": 64 for part in ("encoder", "decoder")},
            "max_position_embeddings": 64,
            "eos_token_id": 3,
        },
    }
    more = {"vocab_size": fast.get_vocab_size(), **sizes[kind], **changes}
    config = transformers.AutoConfig.for_model(kind, **more)
    torch.manual_seed(0)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    names = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}
    wrapped = (
        transformers.BertTokenizerFast if kind == "bert" else transformers.PreTrainedTokenizerFast
    )
    wrapped(tokenizer_object=fast, **names).save_pretrained(folder)
    return folder
