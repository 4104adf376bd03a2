"""MultiNLI: pairs of sentences, and whether the second one has a negation word."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from debiasbench.common.errors import DataError
from debiasbench.common.options import option
from debiasbench.common.wording import shortened, shown
from debiasbench.core.data import Dataset, Task
from debiasbench.core.download import Download

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from debiasbench.datasets._passages import Passage

FOLDERS = ("multinli", "multinli_1.0")  # ours, and that of the official archive
FILES = tuple(f"multinli_1.0_{part}.jsonl" for part in ("train", "dev_matched", "dev_mismatched"))
SPLIT = "metadata_random.csv"
URL = "https://cims.nyu.edu/~sbowman/multinli/multinli_1.0.zip"
SPLIT_URL = (
    "https://github.com/kohpangwei/group_DRO/raw/f7eae929bf4f9b3c381fae6b1b53ab4c6c911a0e/"
    f"dataset_metadata/multinli/{SPLIT}"
)
CLASSES = ("contradiction", "entailment", "neutral")
NEGATIONS = frozenset({"nobody", "no", "never", "nothing"})
VAL, TEST = 0.2, 0.3  # of all pairs; the rest is for training

_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class MultiNLI(Dataset):
    """Pairs of sentences: the first entails or contradicts the second, or neither.

    The bias is whether the second sentence has one of the words nobody, no, never and nothing, as
    in group DRO. A class and a bias value are aligned if they occur together in training more often
    than if they were independent: P(class | bias) > P(class).

    The official training and development pairs are joined and split again, 50/20/30 %, as in group
    DRO. With split=released, the split is that of its file metadata_random.csv. With split=seeded,
    it is drawn here in the same proportions: other pairs, so results differ from published ones.
    """

    citation: ClassVar[str] = (
        "Williams, Nangia, Bowman. A Broad-Coverage Challenge Corpus for Sentence Understanding "
        "through Inference. NAACL 2018. As a benchmark of groups: Sagawa et al., ICLR 2020."
    )
    source: ClassVar[str] = f"{URL}, unpacked under the data root, and beside its files {SPLIT_URL}"
    downloads: ClassVar[Sequence[Download]] = (
        Download(
            path=f"{FOLDERS[1]}.zip",
            urls=(URL,),
            gives=tuple(f"{FOLDERS[1]}/{name}" for name in FILES),
            unpack="zip",
        ),
        Download(path=f"{FOLDERS[1]}/{SPLIT}", urls=(SPLIT_URL,)),
    )
    licence: ClassVar[str] = "OANC; fiction in part CC BY 3.0 and CC BY-SA 3.0"
    # the settings of group DRO
    training: ClassVar[Mapping[str, object]] = {
        "epochs": 3,
        "batch_size": 32,
        "optimizer": "adamw",
        "lr": 2e-5,
        "weight_decay": 0.0,
        "schedule": "linear",
        "clip_norm": 1.0,
    }
    model: ClassVar[str] = "hf:bert-base-uncased"

    split: Literal["released", "seeded"] = option(
        "released",
        f"released: the split of group DRO's file {SPLIT}; seeded: one of the same proportions, "
        "and the default where that file is absent",
    )
    split_seed: int = option(0, "seed of split=seeded", ge=0)

    @classmethod
    def implied(cls, root: Path) -> Mapping[str, object]:
        """Choose split=seeded where the file of the released split is absent."""
        return {} if (_folder(root) / SPLIT).exists() else {"split": "seeded"}

    def sources(self, root: Path) -> Sequence[Path]:
        """Return the files of pairs, and that of the split if it is used."""
        names = FILES if self.split == "seeded" else (*FILES, SPLIT)
        return [_folder(root) / name for name in names]

    def load(self, root: Path) -> Task:
        """All pairs with a label of training, matched and mismatched development; 412,349 in all.

        Pairs without a label, "-", are left out after the split is drawn, as in group DRO.
        """
        from debiasbench.datasets._passages import splits
        from debiasbench.datasets._together import together

        folder = _folder(root)
        self._check(root, folder)
        pairs = [pair for name in FILES for pair in read_pairs(folder / name)]
        if self.split == "seeded":
            passages = _seeded(pairs, self.split_seed)
        else:
            passages = _released(pairs, folder / SPLIT)
        train, val, test = splits(passages, num_biases=2, where=folder)
        return Task(
            train=train,
            val=val,
            test=test,
            classes=CLASSES,
            biases=("no negation", "negation"),
            aligned=together(train, num_classes=len(CLASSES)),
            metric="worst_group",
            select="val_worst_group",
        )

    def _check(self, root: Path, folder: Path) -> None:
        for path in self.sources(root):
            if path.is_file():
                continue
            advice = (
                f"Download it with `debiasbench data prepare multinli`, or unpack {URL} under the "
                f"data root {root}"
            )
            if path.name == SPLIT:
                advice = (
                    f"Put {SPLIT_URL} into {folder}, or draw another split with --set "
                    "dataset.split=seeded"
                )
            raise DataError(
                f"{path} is missing. {advice}. To use another data root, set --data-root or "
                "DEBIASBENCH_DATA"
            )


class Pair(NamedTuple):
    """A pair of sentences with its class, None if it has no label; `line` is in `file`."""

    file: Path
    line: int
    y: int | None
    texts: tuple[str, str]

    @property
    def where(self) -> str:
        """The file and the line, for error messages."""
        return f"{self.file}, line {self.line}"


def read_pairs(path: Path) -> Iterator[Pair]:
    """Read a file of pairs line by line; raises `DataError` with the line of the first error."""
    from debiasbench.datasets._passages import filled
    from debiasbench.datasets._table import AGAIN

    labels = {**{name: number for number, name in enumerate(CLASSES)}, "-": None}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            row = _parsed(line, where)
            for key in ("gold_label", "sentence1", "sentence2"):
                if not isinstance(row.get(key), str):
                    raise DataError(f"{where} has no text {key!r}. {AGAIN}")
            if (label := row["gold_label"]) not in labels:
                raise DataError(
                    f"{where}: gold_label is {shown(label)}, must be {' or '.join(labels)}. {AGAIN}"
                )
            first, second = (filled(row[key], key, where) for key in ("sentence1", "sentence2"))
            yield Pair(path, number, labels[label], (first, second))


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    from debiasbench.datasets._table import AGAIN

    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON ({shortened(str(error))}). {AGAIN}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where} is not a JSON object. {AGAIN}")
    return row


def has_negation(sentence: str) -> bool:
    """Return whether a sentence has a negation word; punctuation and case do not count.

    As in group DRO's generate_multinli.py: words are between single spaces.
    """
    words = sentence.translate(_PUNCTUATION).lower().split(" ")
    return not NEGATIONS.isdisjoint(words)


def _seeded(pairs: Sequence[Pair], seed: int) -> Iterator[Passage]:
    """Draw the split of all pairs, then leave out those without a label."""
    import torch

    from debiasbench.datasets._assignment import generator
    from debiasbench.datasets._passages import Passage

    order = torch.randperm(len(pairs), generator=generator(seed, "multinli"))
    val, test = int(VAL * len(pairs)), int(TEST * len(pairs))
    chosen = torch.zeros(len(pairs), dtype=torch.int8)
    chosen[order[:val]] = 1
    chosen[order[val : val + test]] = 2
    for pair, split in zip(pairs, chosen.tolist(), strict=True):
        if pair.y is not None:
            yield Passage(pair.texts, split, pair.y, int(has_negation(pair.texts[1])))


def _released(pairs: Sequence[Pair], table: Path) -> Iterator[Passage]:
    """Place the pairs as group DRO's table does.

    Its rows are the pairs with a label, in order: the index in its first column leaves out the
    others. Raises `DataError` if the table is that of other pairs.
    """
    from debiasbench.datasets._passages import Passage
    from debiasbench.datasets._table import AGAIN, comma_separated, rows

    lines = comma_separated(table)
    _, header = next(lines, (1, []))
    columns = ("gold_label", "sentence2_has_negation", "split")
    classes = {str(number): number for number in range(len(CLASSES))}
    binary, thirds = {"0": 0, "1": 1}, {"0": 0, "1": 1, "2": 2}
    labelled = (pair for pair in pairs if pair.y is not None)
    for row in rows(table, lines, header, columns):
        pair = next(labelled, None)
        y, bias = row.one_of("gold_label", classes), row.one_of("sentence2_has_negation", binary)
        if pair is None or pair.y != y:
            found = "there are no more pairs" if pair is None else f"{pair.where} has another"
            raise DataError(
                f"{row.where} has the label {CLASSES[y]}, but {found}. Download {SPLIT} and "
                "MultiNLI 1.0 again: they belong together"
            )
        yield Passage(pair.texts, row.one_of("split", thirds), y, bias)
    if (left := next(labelled, None)) is not None:
        raise DataError(f"{table} has no row for {left.where}. {AGAIN}")


def _folder(root: Path) -> Path:
    existing = [root / name for name in FOLDERS if (root / name / FILES[0]).is_file()]
    return existing[0] if existing else root / FOLDERS[1]
