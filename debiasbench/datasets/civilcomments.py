"""CivilComments: comments on news, toxic or not, that mention an identity or not; from WILDS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from debiasbench.common.errors import DataError
from debiasbench.common.options import option
from debiasbench.core.data import Dataset, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from debiasbench.datasets._passages import Passage
    from debiasbench.datasets._table import Row

FOLDERS = ("civilcomments", "civilcomments_v1.0")  # ours, and that of the package wilds
FILE = "all_data_with_identities.csv"

Identity = Literal[
    "identity_any",
    "male",
    "female",
    "LGBTQ",
    "christian",
    "muslim",
    "other_religions",
    "black",
    "white",
]


@dataclass(frozen=True)
class CivilComments(Dataset):
    """Comments on news; the class is whether one is toxic, the bias is a mention of an identity.

    A comment is toxic, or mentions an identity, if at least half of its annotators say so. The bias
    is the mention of any of the 24 identities that were annotated, or of one that `bias` names. A
    class and a bias value are aligned if they occur together in training more often than if they
    were independent: P(class | bias) > P(class).

    A group is one class with or without the mention: four groups, which do not overlap. WILDS
    reports the worst of 16 groups that do: each of the eight identities with each class.
    `debiasbench results attributes` prints them for a record.
    """

    citation: ClassVar[str] = (
        "Borkan, Dixon, Sorensen, Thain, Vasserman. Nuanced Metrics for Measuring Unintended Bias "
        "with Real Data for Text Classification. WWW 2019 Companion. Splits: Koh et al., WILDS, "
        "ICML 2021."
    )
    source: ClassVar[str] = (
        f"manual download: {FILE} of WILDS (https://wilds.stanford.edu/get_started, data set "
        "civilcomments), into the folder civilcomments under the data root"
    )
    licence: ClassVar[str] = "CC0 1.0"
    # the defaults of WILDS, which also reads 300 tokens of a comment: model.max_length=300
    training: ClassVar[Mapping[str, object]] = {
        "epochs": 5,
        "batch_size": 16,
        "optimizer": "adamw",
        "lr": 1e-5,
        "weight_decay": 0.01,
        "schedule": "linear",
        "clip_norm": 1.0,
    }
    model: ClassVar[str] = "hf:bert-base-uncased"

    bias: Identity = option("identity_any", "identity whose mention is the bias")

    def sources(self, root: Path) -> Sequence[Path]:
        """Return the table of WILDS."""
        return [_folder(root) / FILE]

    def load(self, root: Path) -> Task:
        """The comments with annotated identities, in the splits of WILDS, which are by article."""
        from debiasbench.datasets._passages import splits
        from debiasbench.datasets._together import together

        table = self._table(root)
        train, val, test = splits(comments(table, self.bias), num_biases=2, where=table)
        return Task(
            train=train,
            val=val,
            test=test,
            classes=("non_toxic", "toxic"),
            biases=(f"{self.bias}=0", f"{self.bias}=1"),
            aligned=together(train, num_classes=2),
            metric="worst_group",
            select="val_worst_group",
        )

    def attributes(self, root: Path) -> Mapping[str, Tensor]:
        """Whether a test comment mentions each of the eight identities of WILDS."""
        import torch

        names = [name for name in get_args(Identity) if name != "identity_any"]
        mentions = [
            [_most(row, name) for name in names]
            for row in _rows(self._table(root), ("split", *names))
            if row["split"] == "test"
        ]
        columns = torch.tensor(mentions, dtype=torch.bool).reshape(-1, len(names)).unbind(1)
        return dict(zip(names, columns, strict=True))

    def _table(self, root: Path) -> Path:
        """Return the table of WILDS; raises `DataError` if it is missing."""
        (table,) = self.sources(root)
        if not table.is_file():
            raise DataError(
                f"{table} is missing. Put {FILE} of WILDS into {root / FOLDERS[0]} (`debiasbench "
                "show civilcomments` names the source). To use another data root, set --data-root "
                "or DEBIASBENCH_DATA"
            )
        return table


def comments(table: Path, identity: str) -> Iterator[Passage]:
    """Read the table of WILDS line by line; raises `DataError` with the line of the first error."""
    from debiasbench.datasets._passages import SPLITS, Passage, filled

    names = {name: number for number, name in enumerate(SPLITS)}
    for row in _rows(table, ("comment_text", "split", "toxicity", identity)):
        yield Passage(
            texts=(filled(row["comment_text"], "comment_text", row.where),),
            split=row.one_of("split", names),
            y=_most(row, "toxicity"),
            bias=_most(row, identity),
        )


def _rows(table: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    from debiasbench.datasets._table import comma_separated, rows

    lines = comma_separated(table)
    _, header = next(lines, (1, []))
    return rows(table, lines, header, columns)


def _most(row: Row, column: str) -> int:
    """Return 1 if at least half of the annotators said so; raises `DataError` for no fraction."""
    from debiasbench.datasets._table import AGAIN

    try:
        share = float(row[column])
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise DataError(
            f"{row.where}: {column} is {row[column]!r}, must be a number from 0 to 1. {AGAIN}"
        )
    return int(share >= 0.5)


def _folder(root: Path) -> Path:
    existing = [root / name for name in FOLDERS if (root / name / FILE).is_file()]
    return existing[0] if existing else root / FOLDERS[0]
