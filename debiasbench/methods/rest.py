"""REST: reweighted sparse training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.common.options import option
from debiasbench.core.method import Method, Supervision
from debiasbench.core.weights import upweight_conflict

if TYPE_CHECKING:
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class REST(Method):
    """Reweighted sparse training: dynamic sparsity from scratch, conflicting samples upweighted.

    Erdos-Renyi-kernel masks; now and then each layer drops its smallest weights and grows as many
    where the gradient is largest (RigL); bias-conflicting samples are drawn more often.

    `compat=released` does what the released code does where it differs by accident: conflicting
    samples weigh 80 at every ratio, the topology changes every 1000 steps until the end, and
    momentum of inactive weights runs on. Its commands also omit the flag that turns reweighting
    on: add `reweight=false` for that reading. Masks have exact counts in either case.
    """

    citation: ClassVar[str] = (
        "Zhao, Yin, Liu, Fang, Pechenizkiy. REST: Enhancing Group Robustness in DNNs through "
        "Reweighted Sparse Training. ECML PKDD 2023. Code: github.com/zhao1402072392/REST."
    )

    density: float = option(0.05, "fraction of convolution and linear weights kept", gt=0, le=1)
    weight: float | None = option(
        None,
        "how often a conflicting sample is drawn for one aligned; none: as `upweight`'s "
        "(released: 80)",
        gt=0,
    )
    reweight: bool = option(True, "whether conflicting samples are drawn more often at all")
    distribution: Literal["erk", "uniform"] = option("erk", "how layers share the weights")
    grow: Literal["gradient", "random"] = option("gradient", "what to grow: RigL or SET")
    drop_fraction: float = option(
        0.5, "fraction of active weights exchanged by the first update", ge=0, le=1
    )
    final_drop_fraction: float = option(0.005, "the same at the last, by a cosine", ge=0, le=1)
    update_every: int | None = option(
        None, "steps between updates; none: a twentieth of the training (released: 1000)", ge=1
    )
    stop: float | None = option(
        None,
        "fraction of training after which the topology stays; none: 0.75 (released: 1)",
        gt=0,
        le=1,
    )
    compat: Literal["none", "released"] = option("none", "released: what the released code does")

    @property
    def supervision(self) -> Supervision:
        """The conflict bit, if it reweights."""
        return Supervision(train="conflict" if self.reweight else "none")

    def fit(self, lab: Lab) -> Trained:
        """Train once, sparse and reweighted."""
        from debiasbench import sparsity

        released = self.compat == "released"
        updater = sparsity.REST(
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
