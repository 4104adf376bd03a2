"""debiasbench: compare debiasing methods honestly.

Everything that a plugin needs is importable from here, and so is what runs it: `compare`,
`Session`. Names are imported when they are first used, so that `import debiasbench` is quick and
needs no torch. Tests of plugins call `debiasbench.testing`; sparse training for other loops is
`debiasbench.sparsity`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from debiasbench.common.options import option as option
    from debiasbench.common.space import choice as choice
    from debiasbench.common.space import log as log
    from debiasbench.common.space import uniform as uniform
    from debiasbench.core.batches import Batches as Batches
    from debiasbench.core.component import Component as Component
    from debiasbench.core.component import ComponentLike as ComponentLike
    from debiasbench.core.data import Batch as Batch
    from debiasbench.core.data import Dataset as Dataset
    from debiasbench.core.data import Split as Split
    from debiasbench.core.data import Task as Task
    from debiasbench.core.download import Download as Download
    from debiasbench.core.features import FeaturesOf as FeaturesOf
    from debiasbench.core.hooks import Register as Register
    from debiasbench.core.hooks import hookimpl as hookimpl
    from debiasbench.core.inputs import Inputs as Inputs
    from debiasbench.core.lab import Lab as Lab
    from debiasbench.core.method import Method as Method
    from debiasbench.core.model import Model as Model
    from debiasbench.core.model import Shape as Shape
    from debiasbench.core.objective import CrossEntropy as CrossEntropy
    from debiasbench.core.objective import Objective as Objective
    from debiasbench.core.objective import ParameterGroup as ParameterGroup
    from debiasbench.core.prepare import Prepare as Prepare
    from debiasbench.core.settings import Training as Training
    from debiasbench.core.stage import Beside as Beside
    from debiasbench.core.stage import Checkpoint as Checkpoint
    from debiasbench.core.stage import EpochChange as EpochChange
    from debiasbench.core.stage import Stage as Stage
    from debiasbench.core.stage import StageCost as StageCost
    from debiasbench.core.stage import Trained as Trained
    from debiasbench.core.stage import Trainer as Trainer
    from debiasbench.core.supervision import Supervision as Supervision
    from debiasbench.core.texts import Texts as Texts
    from debiasbench.core.tokenizer import Tokenizer as Tokenizer
    from debiasbench.core.tracker import TrackedRun as TrackedRun
    from debiasbench.core.tracker import Tracker as Tracker
    from debiasbench.core.view import HeldOut as HeldOut
    from debiasbench.core.view import View as View
    from debiasbench.core.weights import equal_groups as equal_groups
    from debiasbench.core.weights import equal_subset as equal_subset
    from debiasbench.core.weights import published_weight as published_weight
    from debiasbench.core.weights import upweight_conflict as upweight_conflict
    from debiasbench.leaderboard.results import frame as frame
    from debiasbench.parts.groups import GroupDROLoss as GroupDROLoss
    from debiasbench.parts.losses import SampleAverages as SampleAverages
    from debiasbench.parts.losses import gce as gce
    from debiasbench.parts.losses import relative_difficulty as relative_difficulty
    from debiasbench.runs.compare import compare as compare
    from debiasbench.runs.session import Session as Session
    from debiasbench.specs.plugins import Plugins as Plugins
    from debiasbench.specs.resolve import make_spec as make_spec
    from debiasbench.specs.spec import Spec as Spec

_NAMES = {
    "common.options": ["option"],
    "common.space": ["choice", "log", "uniform"],
    "core.batches": ["Batches"],
    "core.component": ["Component", "ComponentLike"],
    "core.data": ["Batch", "Dataset", "Split", "Task"],
    "core.download": ["Download"],
    "core.features": ["FeaturesOf"],
    "core.hooks": ["Register", "hookimpl"],
    "core.inputs": ["Inputs"],
    "core.lab": ["Lab"],
    "core.method": ["Method"],
    "core.model": ["Model", "Shape"],
    "core.objective": ["CrossEntropy", "Objective", "ParameterGroup"],
    "core.prepare": ["Prepare"],
    "core.settings": ["Training"],
    "core.stage": [
        "Beside",
        "Checkpoint",
        "EpochChange",
        "Stage",
        "StageCost",
        "Trained",
        "Trainer",
    ],
    "core.supervision": ["Supervision"],
    "core.texts": ["Texts"],
    "core.tokenizer": ["Tokenizer"],
    "core.tracker": ["TrackedRun", "Tracker"],
    "core.view": ["HeldOut", "View"],
    "core.weights": ["equal_groups", "equal_subset", "published_weight", "upweight_conflict"],
    "leaderboard.results": ["frame"],
    "parts.groups": ["GroupDROLoss"],
    "parts.losses": ["SampleAverages", "gce", "relative_difficulty"],
    "runs.compare": ["compare"],
    "runs.session": ["Session"],
    "specs.plugins": ["Plugins"],
    "specs.resolve": ["make_spec"],
    "specs.spec": ["Spec"],
}
_MODULES = {name: f"debiasbench.{module}" for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULES)  # noqa: PLE0605 - a list of texts


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'debiasbench' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # the next time it is found at once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
