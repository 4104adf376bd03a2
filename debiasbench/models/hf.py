"""Any sequence classifier of transformers, by its name on the hub or its folder."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from debiasbench.common.errors import DataError, OptionError
from debiasbench.common.options import option
from debiasbench.core.model import Model, Shape
from debiasbench.models._hf_files import Source, transformers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, nn

    from debiasbench.core.inputs import Inputs
    from debiasbench.models._hf_tokenizer import FastTokenizer


@dataclass(frozen=True)
class HuggingFace(Model):
    """Any sequence classifier of transformers, as hf:NAME or hf:FOLDER, for data sets of texts.

    Needs the extra `text`. Weights are read from safetensors only, and code of a repository is
    never run. Biases and normalisation layers have no weight decay. Attention is computed by
    PyTorch's scaled_dot_product_attention where the model supports it.
    """

    citation: ClassVar[str] = (
        "Wolf et al. Transformers: State-of-the-Art Natural Language Processing. EMNLP 2020 "
        "(System Demonstrations)."
    )
    packages: ClassVar[Sequence[str]] = ("transformers", "tokenizers")

    name: str = option("bert-base-uncased", "the model's name on the hub, or a folder")
    pretrained: bool = option(
        True, "start from the pretrained weights; otherwise only the configuration is used"
    )
    max_length: int = option(
        128, "tokens of a text or a pair, with the special ones; the rest is cut off", ge=3
    )
    dropout: float | None = option(
        None, "all rates of dropout; none: those of the model's configuration", ge=0, lt=1
    )
    commit: str | None = option(
        None, "commit of the repository on the hub; none: its branch main, when first downloaded"
    )

    def build(self, shape: Shape) -> nn.Module:
        """Read the weights, with a new head if the stored one has other classes."""
        library = transformers(self.name)
        config = self._config(shape)
        if not self.pretrained:
            return self._made(config)
        import torch

        network, report = self._source.load(
            "the weights (model.safetensors)",
            library.AutoModelForSequenceClassification.from_pretrained,
            config=config,
            dtype=torch.float32,
            attn_implementation=self._attention(config),
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # of the head; others are found below
            output_loading_info=True,
        )
        self._check_weights(network, report)
        return self._classifier(network)

    def skeleton(self, shape: Shape) -> nn.Module:
        """Build the same network without weights, from its configuration."""
        return self._made(self._config(shape))

    def tokenizer(self) -> FastTokenizer:
        """Return the model's tokenizer; raises `DataError` if it has none that is fast."""
        transformers(self.name)
        return _tokenizer(self._source, self.max_length, self._source.stamp())

    def example(self, shape: Shape, samples: int, rng: Generator) -> Inputs:
        """Return random tokens of random lengths."""
        from debiasbench.models._hf_network import tokens

        return tokens(self._config(shape), shape.inputs, samples, rng)

    @property
    def _source(self) -> Source:
        return Source(self.name, self.commit)

    def _config(self, shape: Shape) -> Any:
        """Return the model's configuration for the classes and options; raises `OptionError`."""
        if "input_ids" not in shape.inputs:
            raise OptionError(
                f"hf:{self.name} reads texts, and the samples of this data set are of shape "
                f"{shape.input or dict(shape.inputs)}. Use another --model"
            )
        config = _config(self._source)
        config.num_labels = shape.classes
        config.problem_type = "single_label_classification"
        if self.dropout is not None:
            _set_dropout(config, self.dropout, self.name)
        return config

    def _attention(self, config: Any) -> str:
        """Return how attention is computed; a configuration could name code on the hub instead."""
        return "sdpa" if getattr(_class(config), "_supports_sdpa", False) else "eager"

    def _made(self, config: Any) -> nn.Module:
        """Return the network with initial weights."""
        import torch

        auto = transformers(self.name).AutoModelForSequenceClassification
        network: nn.Module = auto.from_config(
            config,
            dtype=torch.float32,
            attn_implementation=self._attention(config),
            trust_remote_code=False,
        )
        return self._classifier(network)

    def _classifier(self, network: nn.Module) -> nn.Module:
        from debiasbench.models._hf_network import NotLinear, classifier

        try:
            return classifier(network.float().train(), longest=self.max_length)
        except NotLinear as error:
            raise OptionError(
                f"hf:{self.name} ({type(network).__name__}) cannot be used: {error}. Use another "
                "--model"
            ) from error
        except (IndexError, RuntimeError) as error:
            raise OptionError(
                f"hf:{self.name} ({type(network).__name__}) cannot read {self.max_length} tokens "
                f"({str(error).partition(chr(10))[0]}): set model.max_length to fewer"
            ) from error

    def _check_weights(self, network: Any, report: Any) -> None:
        """Raise `DataError` if other weights than those of the head are missing in the file."""
        base = f"{network.base_model_prefix}."
        wrong = [n for n in report["missing_keys"] if n.startswith(base) and "pooler" not in n]
        wrong += [n for n, *_ in report["mismatched_keys"] if n.startswith(base)]
        if wrong:
            raise DataError(
                f"hf:{self.name}: its weights do not fit its configuration: {sorted(wrong)[0]} and "
                f"{len(wrong) - 1} others are missing or of another size"
            )


def _config(source: Source) -> Any:
    """Return the configuration of a model that can classify sequences."""
    library = transformers(source.name)
    config = source.load("the configuration", library.AutoConfig.from_pretrained)
    if _class(config) is None:
        raise DataError(
            f"hf:{source.name}: transformers has no sequence classifier for models of type "
            f"{config.model_type!r}. Use another --model"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise DataError(
            f"hf:{source.name} has quantised weights, which cannot be trained. Use another --model"
        )
    return config


def _class(config: Any) -> Any:
    """Return the sequence classifier of transformers for a configuration, None if it has none."""
    known = transformers("").AutoModelForSequenceClassification._model_mapping
    found = known.get(type(config), None)
    return found[0] if isinstance(found, tuple) else found


def _set_dropout(config: Any, rate: float, name: str) -> None:
    """Set all rates of dropout, except of whole layers, that a configuration has."""
    rates = [
        key
        for key, value in config.to_dict().items()
        if ("dropout" in key or "pdrop" in key)
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    ]
    if not rates:
        raise OptionError(f"hf:{name} has no dropout to set: leave out model.dropout")
    for key in rates:
        setattr(config, key, rate)


@functools.lru_cache(maxsize=8)
def _tokenizer(source: Source, max_length: int, _stamp: object) -> FastTokenizer:
    """Return a tokenizer; it is read again only if a file in its folder has changed."""
    from debiasbench.models._hf_tokenizer import FastTokenizer

    library = transformers(source.name)
    config = _config(source)
    loaded = source.load("the tokenizer", library.AutoTokenizer.from_pretrained)
    fast = getattr(loaded, "backend_tokenizer", None)
    vocabulary = {} if fast is None else fast.get_vocab(with_added_tokens=True)
    # without its files, transformers makes one that knows special tokens only
    if set(vocabulary) <= set(loaded.all_special_tokens):
        raise DataError(
            f"hf:{source.name} has no tokenizer of the tokenizers library: a file such as "
            "tokenizer.json is missing. Write it with `AutoTokenizer...save_pretrained(FOLDER)`"
        )
    size = config.get_text_config().vocab_size
    if max(vocabulary.values()) >= size:
        raise DataError(
            f"hf:{source.name}: its tokenizer has ids up to {max(vocabulary.values())}, but the "
            f"model has embeddings for {size} tokens. They do not belong together"
        )
    reads = "token_type_ids" in inspect.signature(_class(config).forward).parameters
    types = reads and getattr(config, "type_vocab_size", 2) > 1
    types = types and "token_type_ids" in loaded.model_input_names
    return FastTokenizer(fast, max_length=max_length, types=types)
