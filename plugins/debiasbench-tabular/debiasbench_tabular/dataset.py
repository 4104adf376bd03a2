"""Diagnosis of breast tumours, with the clinic as a shortcut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from debiasbench import Dataset, Split, Task, option

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VAL, TEST = 80, 160  # samples; the other 329 are training samples


@dataclass(frozen=True)
class BreastCancer(Dataset):
    """569 tumours with 30 measurements, and a clinic that predicts the diagnosis in training."""

    citation: ClassVar[str] = (
        "Wolberg, Mangasarian, Street, Street. Breast Cancer Wisconsin (Diagnostic). UCI, 1993. "
        "The clinic column is synthetic."
    )
    source: ClassVar[str] = "included in scikit-learn"
    licence: ClassVar[str] = "CC BY 4.0"
    training: ClassVar[Mapping[str, object]] = {
        "epochs": 30,
        "batch_size": 32,
        "optimizer": "adamw",
        "lr": 0.001,
        "weight_decay": 0.01,
    }
    model: ClassVar[str] = "tabular-resnet"

    ratio: float = option(0.05, "fraction of bias-conflicting training samples", ge=0, le=1)
    split_seed: int = option(0, "seed of the splits and of the clinics", ge=0)

    def load(self, root: Path) -> Task:
        """Return (N, 31) float32 tables: standardised measurements, and the clinic as -1 or 1."""
        from sklearn.datasets import load_breast_cancer

        table = load_breast_cancer()
        x = torch.from_numpy(table.data).float()  # (569, 30)
        y = torch.from_numpy(table.target).long()  # (569,), 0 is malignant
        rng = torch.Generator().manual_seed(self.split_seed)
        order = torch.randperm(len(y), generator=rng)
        test, val, train = order[:TEST], order[TEST : TEST + VAL], order[TEST + VAL :]
        mean, std = x[train].mean(0), x[train].std(0)

        def split(index: torch.Tensor, conflicting: float) -> Split:
            label = y[index]
            bias = label.clone()
            for c in (0, 1):
                members = (label == c).nonzero()[:, 0]
                members = members[torch.randperm(len(members), generator=rng)]
                bias[members[: round(conflicting * len(members))]] = 1 - c
            clinic = (2.0 * bias - 1)[:, None]
            return Split(torch.cat([(x[index] - mean) / std, clinic], 1), label, bias, num_biases=2)

        return Task(
            train=split(train, self.ratio),
            val=split(val, 0.5),
            test=split(test, 0.5),
            classes=("malignant", "benign"),
            biases=("clinic A", "clinic B"),
            aligned=torch.eye(2, dtype=torch.bool),
            metric="unbiased",
            select="val_unbiased",
        )
