"""REST: reweighted sparse training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.common.options import option
from debiasbench.common.space import choice, log
from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision
from debiasbench.core.weights import upweight_conflict

if TYPE_CHECKING:
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class REST(Method):
    """Reweighted sparse training: dynamic sparse training with upweighted conflicting samples.

    By default, masks follow the Erdos-Renyi-kernel distribution. At regular intervals each layer
    drops its smallest weights and grows the same number of weights, those with the largest
    gradients (RigL). Bias-conflicting samples are drawn more often.

    `compat=released` follows the released code where it differs from the paper: conflicting samples
    have weight 80 at every ratio, the topology changes every 1000 steps, also in the last step, a
    layer with a single active weight exchanges it, and the momentum of inactive weights is not
    reset. The released commands also omit the flag that turns
    reweighting on: add `reweight=false` to reproduce them. Masks always have exact numbers of
    weights.
    """

    citation: ClassVar[str] = (
        "Zhao, Yin, Liu, Fang, Pechenizkiy. REST: Enhancing Group Robustness in DNNs through "
        "Reweighted Sparse Training. ECML PKDD 2023. Code: github.com/zhao1402072392/REST."
    )

    density: float = option(
        0.05, "fraction of convolution and linear weights kept", gt=0, le=1, search=log(0.01, 0.5)
    )
    weight: float | None = option(
        None,
        "how often a conflicting sample is drawn, relative to an aligned one; none: as in method "
        "upweight (released: 80)",
        gt=0,
        search=choice(10, 30, 50, 80),
    )
    reweight: bool = option(True, "whether conflicting samples are drawn more often")
    distribution: Literal["erk", "uniform"] = option(
        "erk", "how the weights are distributed over layers"
    )
    grow: Literal["gradient", "random"] = option(
        "gradient", "which weights to grow: largest gradient (RigL) or random (SET)"
    )
    drop_fraction: float = option(
        0.5,
        "fraction of the active weights of a layer that an update at the start would exchange",
        ge=0,
        le=1,
    )
    final_drop_fraction: float = option(
        0.005, "the same at `stop`, with cosine decay in between", ge=0, le=1
    )
    update_every: int | None = option(
        None,
        "steps between updates; none: 5 % of the training (released: 1000)",
        ge=1,
        search=log(100, 10_000),
    )
    stop: float | None = option(
        None,
        "fraction of training after which the topology is fixed; none: 0.75 (released: 1)",
        gt=0,
        le=1,
    )
    compat: Literal["none", "released"] = option(
        "none", "released: follow the released code where it differs from the paper"
    )

    @property
    def supervision(self) -> Supervision:
        """Conflict labels if samples are reweighted, otherwise nothing."""
        return Supervision(train="conflict" if self.reweight else "none")

    def fit(self, lab: Lab) -> Trained:
        """Train a sparse network once, on reweighted samples."""
        from debiasbench import sparsity

        released = self.compat == "released"
        updater = (sparsity.RESTReleased if released else sparsity.REST)(
            density=self.density,
            distribution=self.distribution,
            grow=self.grow,
            drop_fraction=self.drop_fraction,
            final_drop_fraction=self.final_drop_fraction,
            every=str(self.update_every or (1000 if released else "5%")),
            stop=self.stop or (1.0 if released else 0.75),
            optimizer_state="dense" if released else "mask",
        )
        weights = None
        if self.reweight:
            weight = self.weight or (80.0 if released else None)
            weights = upweight_conflict(lab.labels(label="conflict"), weight)
        return lab.train(
            lab.model(), weights=weights, components=[sparsity.Sparsify(updater)], name="train"
        )
