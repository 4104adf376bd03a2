"""Sequence classifiers of transformers: heads, features, tokenizers, sparsity, and bad folders."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from torch import nn

from debiasbench import sparsity
from debiasbench.common.errors import DataError, OptionError
from debiasbench.common.randomness import seeded
from debiasbench.core.features import FeaturesOf
from debiasbench.core.head import check_head
from debiasbench.core.model import Shape
from debiasbench.models._hf_tokenizer import FastTokenizer
from debiasbench.models.hf import HuggingFace
from debiasbench.specs.plugins import Plugins
from tests.tiny_bert import save, texts, transformers, word_piece

SHAPE = Shape((), 3, {"input_ids": (40,), "length": ()})
KINDS = [
    "bert",
    "roberta",
    "distilbert",
    "gpt2",
    "llama",
    "albert",
    "electra",
    "deberta-v2",
    "bart",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: save(root / kind, kind=kind) for kind in KINDS}


@pytest.fixture
def bert(folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders["bert"], tmp_path / "bert"))


def hf(folder: Path, **options: Any) -> HuggingFace:
    return HuggingFace(str(folder), **{"max_length": 40, **options})


def batch(model: HuggingFace, samples: list[tuple[str, ...]]) -> dict[str, torch.Tensor]:
    return model.tokenizer()(samples)


SAMPLES = [(text,) for text in texts(6)]


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers_and_of_the_head_for_the_features(
    folders: dict[str, Path], kind: str
) -> None:
    model = hf(folders[kind])
    with seeded(0):
        network = model.build(SHAPE).eval()
    x = batch(model, SAMPLES)
    check_head(network, model.head(network), x, linear=True)
    logits, features = FeaturesOf(model)(network, x)
    assert logits.shape == (6, 3)
    assert features.shape == (6, 32)
    head: Any = model.head(network)
    assert torch.allclose(head(features), logits, atol=1e-6)
    own: Any = network.network
    for i, n in enumerate(x["length"].tolist()):  # one by one, without any padding
        ids = x["input_ids"][i : i + 1, :n].long()
        assert torch.allclose(own(input_ids=ids).logits[0], logits[i], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_logits_whatever_its_values_and_its_width(
    folders: dict[str, Path], kind: str
) -> None:
    model = hf(folders[kind])
    network = model.build(SHAPE).eval()
    x = batch(model, SAMPLES)
    longest = x["input_ids"].shape[1]
    wide = torch.full((6, 40), 7, dtype=torch.int32)
    used = torch.arange(longest) < x["length"][:, None]
    wide[:, :longest] = x["input_ids"].where(used, 7)
    other = network({**x, "input_ids": wide})
    assert torch.allclose(network(x), other, atol=1e-5)


def test_pretrained_weights_are_read_with_a_new_head_for_other_classes(bert: Path) -> None:
    with seeded(0):
        network = hf(bert).build(SHAPE)
    stored = transformers.BertForSequenceClassification.from_pretrained(bert).state_dict()
    state = network.state_dict()
    same = {n for n, v in stored.items() if v.equal(state[f"network.{n}"])}
    assert set(stored) - same == {"classifier.weight", "classifier.bias"}
    assert {v.dtype for v in state.values()} == {torch.float32}
    with seeded(0):
        again = hf(bert).build(SHAPE).state_dict()
    assert all(v.equal(again[n]) for n, v in state.items())
    with seeded(1):
        other = hf(bert).build(SHAPE).state_dict()
    assert [n for n, v in state.items() if not v.equal(other[n])] == ["network.classifier.weight"]


def test_without_pretrained_weights_they_depend_on_the_seed_and_none_are_needed(bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    model = hf(bert, pretrained=False)
    weights = []
    for seed in (0, 0, 1):
        with seeded(seed):
            weights.append(model.build(SHAPE).state_dict()["network.bert.pooler.dense.weight"])
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])
    skeleton = hf(bert).skeleton(SHAPE).state_dict()
    assert skeleton.keys() == model.build(SHAPE).state_dict().keys()


def test_attention_is_sdpa_where_the_model_has_it(folders: dict[str, Path]) -> None:
    kinds = {k: hf(folders[k]).build(SHAPE).network.config._attn_implementation for k in KINDS}
    assert kinds.pop("deberta-v2") == "eager"
    assert set(kinds.values()) == {"sdpa"}


def test_dropout_sets_all_rates(folders: dict[str, Path]) -> None:
    def rates(kind: str, **options: Any) -> set[float]:
        network = hf(folders[kind], **options).build(SHAPE)
        return {m.p for m in network.modules() if isinstance(m, nn.Dropout)}

    assert rates("bert") == {0.1}
    for kind in ("bert", "roberta", "distilbert", "gpt2", "electra"):
        assert rates(kind, dropout=0.25) == {0.25}
    network = hf(folders["bert"], dropout=0.0).build(SHAPE).train()
    x = batch(hf(folders["bert"]), SAMPLES)
    assert network(x).equal(network(x))


def test_biases_and_normalisation_have_no_weight_decay(bert: Path) -> None:
    network = hf(bert).build(SHAPE)
    (group,) = network.parameter_groups()
    names = {id(p): n for n, p in network.named_parameters()}
    chosen = {names[id(p)] for p in group.parameters}
    assert group.weight_decay == 0
    assert chosen == {n for n in names.values() if "LayerNorm" in n or n.endswith("bias")}


# --- tokenizer


def test_tokens_are_those_of_transformers(bert: Path) -> None:
    own = transformers.AutoTokenizer.from_pretrained(bert)
    pairs = [(a, b) for a, b in zip(texts(8), texts(9)[1:], strict=True)]
    for samples in ([(t,) for t in texts(8)], pairs):
        found = batch(hf(bert, max_length=14), samples)
        expected = own(
            *([s[i] for s in samples] for i in range(len(samples[0]))),
            truncation="longest_first",
            max_length=14,
            padding=True,
            return_tensors="pt",
        )
        assert found["input_ids"].equal(expected["input_ids"].int())
        assert found["length"].equal(expected["attention_mask"].sum(1).int())
        assert {v.dtype for v in found.values()} == {torch.int32}
        assert ("token_type_ids" in found) == (len(samples[0]) == 2)
        if len(samples[0]) == 2:
            assert found["token_type_ids"].equal(expected["token_type_ids"].int())


def test_pairs_have_token_types_only_where_the_model_reads_them(folders: dict[str, Path]) -> None:
    pair = [("a film", "a book")]
    assert "token_type_ids" in batch(hf(folders["bert"]), pair)
    for kind in ("distilbert", "gpt2", "llama"):
        assert "token_type_ids" not in batch(hf(folders[kind]), pair)


def test_token_types_of_pairs_reach_the_network(bert: Path) -> None:
    network = hf(bert).build(SHAPE).eval()
    x = batch(hf(bert), [("a film", "a book")])
    assert not torch.allclose(network(x), network({**x, "token_type_ids": 0 * x["token_type_ids"]}))


def test_the_key_changes_with_the_vocabulary_and_the_length_only(bert: Path) -> None:
    key = hf(bert).tokenizer().key
    assert json.dumps(dict(key))  # plain data
    assert hf(bert, dropout=0.5).tokenizer().key == key
    assert hf(bert, max_length=39).tokenizer().key != key
    other = word_piece(["zebra zebra"] * 2)
    assert FastTokenizer(other, max_length=40, types=True).key != key
    other.save(str(bert / "tokenizer.json"))  # read again, since the file has changed
    assert hf(bert).tokenizer().key != key


def test_a_thousand_sentences_are_tokenised_whatever_their_characters(bert: Path) -> None:
    many = [(f"Größe 日本 {i} \U0001f600 \ud83d",) for i in range(1000)]
    found = batch(hf(bert), many)
    assert len(found["length"]) == 1000
    assert int(found["input_ids"].max()) < 300


def test_a_tokenizer_without_padding_token_works(bert: Path) -> None:
    before = batch(hf(bert), SAMPLES)
    own = json.loads((bert / "tokenizer_config.json").read_text())
    del own["pad_token"]
    (bert / "tokenizer_config.json").write_text(json.dumps(own))
    assert len(set(before["length"].tolist())) > 1
    after = batch(hf(bert), SAMPLES)
    assert all(v.equal(after[n]) for n, v in before.items())
    assert hf(bert).build(SHAPE)(after).shape == (6, 3)


def test_three_texts_are_an_error(bert: Path) -> None:
    with pytest.raises(DataError, match="reads one text or two, not 3"):
        batch(hf(bert), [("a", "b", "c")])


def test_a_text_that_the_vocabulary_has_no_token_for_is_an_error() -> None:
    from tokenizers import Tokenizer, models

    bare = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="[UNK]"))
    with pytest.raises(DataError, match=r"cannot read the texts: .*UNK"):
        FastTokenizer(bare, max_length=8, types=False)([("zebra",)])


# --- sparsity


def test_masks_are_on_linear_layers_only_and_have_the_density_asked_for(bert: Path) -> None:
    network = hf(bert).build(SHAPE)
    names = list(sparsity.maskable(network))
    layer = ("attention.self.query", "attention.self.key", "attention.self.value")
    layer += ("attention.output.dense", "intermediate.dense", "output.dense")
    expected = [f"network.bert.encoder.layer.{i}.{part}.weight" for i in range(2) for part in layer]
    expected += ["network.bert.pooler.dense.weight", "network.classifier.weight"]
    assert names == expected
    linear = {f"{n}.weight" for n, m in network.named_modules() if isinstance(m, nn.Linear)}
    assert set(names) == linear


def test_linear_layers_of_gpt2_are_masked_too_and_compute_the_same(
    folders: dict[str, Path],
) -> None:
    model = hf(folders["gpt2"])
    with seeded(0):
        network = model.build(SHAPE).eval()
    assert len(sparsity.maskable(network)) == 2 * 4 + 1
    own = transformers.AutoModelForSequenceClassification.from_pretrained(
        folders["gpt2"], num_labels=3, ignore_mismatched_sizes=True
    ).eval()
    own.score.load_state_dict(network.network.score.state_dict())
    x = batch(model, SAMPLES[:1])
    expected = own(input_ids=x["input_ids"].long()).logits
    assert torch.allclose(network(x), expected, atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("training", [True, False])
def test_flops_include_attention_whatever_kernel_computes_it(
    bert: Path, dropout: float, training: bool
) -> None:
    network = hf(bert, dropout=dropout).build(SHAPE).train(training)
    x = batch(hf(bert), SAMPLES)
    with sparsity.count_flops(network) as flops:
        network(x)
    tokens, length = x["input_ids"].numel(), x["input_ids"].shape[1]
    attention = 2 * 2 * 2 * tokens * length * 32  # two layers, two products
    assert flops.total == sum(flops.by_parameter.values()) + attention
    linear = 2 * tokens * (4 * 32 * 32 + 2 * 32 * 64) * 2 + 2 * 6 * (32 * 32 + 32 * 3)
    assert sum(flops.by_parameter.values()) == linear


# --- what cannot be used


def refused(
    folder: Path | str, reason: str, error: type[Exception] = DataError, **more: Any
) -> None:
    model = HuggingFace(str(folder), **{"max_length": 40, **more})

    def read() -> None:
        model.tokenizer()
        model.build(SHAPE)

    with pytest.raises(error, match=reason) as caught:
        read()
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_model_says_what_is_missing(tmp_path: Path) -> None:
    refused(tmp_path, "the folder is no model of transformers: it has no config.json")
    refused(tmp_path / "absent", "there is no such folder")
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, "the configuration cannot be read .*model_type")
    (tmp_path / "config.json").write_text("{broken")
    refused(tmp_path, "the configuration cannot be read")


def test_a_missing_tokenizer_file_is_an_error(bert: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bert / name).unlink()
    refused(bert, "a file such as tokenizer.json is missing")


def test_a_broken_tokenizer_file_is_an_error(bert: Path) -> None:
    (bert / "tokenizer.json").write_text("{")
    refused(bert, "the tokenizer cannot be read")


def test_missing_and_pickled_weights_are_refused(bert: Path) -> None:
    network = transformers.BertForSequenceClassification.from_pretrained(bert)
    (bert / "model.safetensors").unlink()
    refused(bert, r"the weights \(model.safetensors\) cannot be read")
    torch.save(network.state_dict(), bert / "pytorch_model.bin")
    refused(bert, r"the weights \(model.safetensors\) cannot be read")


def test_weights_that_do_not_fit_the_configuration_are_refused(bert: Path) -> None:
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**config, "intermediate_size": 32}))
    refused(bert, "its weights do not fit its configuration: bert.encoder")
    (bert / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    refused(bert, "its weights do not fit its configuration: bert.encoder.layer.2")


def test_a_tokenizer_of_another_model_is_refused(bert: Path) -> None:
    many = [f"word{i} {chr(97 + i % 26)}{chr(98 + i % 20)}{i}" for i in range(3000)]
    word_piece(many, 2000).save(str(bert / "tokenizer.json"))
    refused(bert, "They do not belong together")


def test_more_tokens_than_the_model_has_positions_are_refused(bert: Path) -> None:
    refused(
        bert, "cannot read 100 tokens .*set model.max_length to fewer", OptionError, max_length=100
    )


def test_a_model_that_cannot_classify_sequences_is_refused(tmp_path: Path) -> None:
    transformers.ViTConfig().save_pretrained(tmp_path)
    refused(tmp_path, "no sequence classifier for models of type 'vit'")


def test_code_of_a_repository_is_never_run(bert: Path) -> None:
    (bert / "evil.py").write_text("raise SystemExit('run')")
    config = json.loads((bert / "config.json").read_text())
    del config["model_type"]
    config["auto_map"] = {"AutoConfig": "evil.Config"}
    (bert / "config.json").write_text(json.dumps(config))
    refused(bert, "the configuration cannot be read")


def test_a_configuration_cannot_choose_other_code_for_attention(bert: Path) -> None:
    config = json.loads((bert / "config.json").read_text())
    changed = {**config, "attn_implementation": "someone/kernels"}
    (bert / "config.json").write_text(json.dumps(changed))
    for pretrained in (True, False):
        network = hf(bert, pretrained=pretrained).build(SHAPE)
        assert network.network.config._attn_implementation == "sdpa"
    (bert / "config.json").write_text(json.dumps({**config, "quantization_config": {"bits": 4}}))
    refused(bert, "has quantised weights")


def test_a_commit_of_a_folder_is_refused(bert: Path) -> None:
    refused(bert, "model.commit=abc has no effect with the folder", OptionError, commit="abc")


def test_data_without_texts_are_refused(bert: Path) -> None:
    with pytest.raises(OptionError, match=r"reads texts, and the samples .* \(3, 8, 8\)"):
        hf(bert).build(Shape((3, 8, 8), 2))


def test_a_head_that_is_not_linear_is_refused(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bounded = transformers.BertForSequenceClassification.forward

    def forward(self: Any, *args: Any, **more: Any) -> Any:
        output = bounded(self, *args, **more)
        output.logits = output.logits.tanh() * 2
        return output

    monkeypatch.setattr(transformers.BertForSequenceClassification, "forward", forward)
    refused(
        bert,
        "cannot be used: its logits are not the outputs of its last linear layer, classifier",
        OptionError,
    )


def test_a_model_that_reads_padding_is_refused(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = transformers.BertForSequenceClassification.forward

    def forward(self: Any, *args: Any, attention_mask: Any, **more: Any) -> Any:
        return own(self, *args, attention_mask=torch.ones_like(attention_mask), **more)

    monkeypatch.setattr(transformers.BertForSequenceClassification, "forward", forward)
    refused(bert, "its logits depend on the padding", OptionError)


def test_without_the_library_the_error_says_what_to_install(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(bert, r"not installed: pip install \"debiasbench\[text\]\"", OptionError)


def test_a_name_that_is_not_on_the_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused("no-such-owner/no-such-model", "could not be downloaded from the hub")


def test_names_with_slashes_are_options_of_the_family() -> None:
    entry, fixed = Plugins().models.find("hf:google/bert_uncased_L-2_H-128_A-2")
    assert (entry.name, fixed) == ("hf:", {"name": "google/bert_uncased_L-2_H-128_A-2"})
