"""Debiased contrastive weight pruning: learn which weights to keep on mined conflicting samples."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from debiasbench.common.options import option
from debiasbench.common.space import choice, log
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective
from debiasbench.core.weights import upweight_conflict
from debiasbench.parts.contrast import batch_contrast
from debiasbench.parts.losses import gce

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from debiasbench.core.data import Batch
    from debiasbench.core.inputs import Inputs
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained

    FeaturesOf = Callable[[nn.Module, Inputs], tuple[Tensor, Tensor]]


_AUTHORS = {
    "retrain_iter": 1000,
    "train.optimizer": "adam",
    "train.schedule": "constant",
    "train.weight_decay": 0.0,
}


@dataclass(frozen=True)
class DCWP(Method):
    """Debiased contrastive weight pruning: learn a mask that keeps what does not rely on the bias.

    A biased network mines the conflicting samples. With these upweighted, a gate for every weight
    of the trained network is learned, and then the weights that are left are trained again.
    """

    citation: ClassVar[str] = (
        "Park, Lee, Lee, Ye. Training Debiased Subnetworks with Contrastive Weight Pruning. CVPR "
        "2023. arXiv:2210.05247. Code: github.com/ParkGeonYeong/DCWP."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "cmnist": {
            **_AUTHORS,
            "lr_main": 0.001,
            "train.lr": 0.01,
            "train.batch_size": 256,
            "train.epochs": 47,
        },
        "cifar10c": {
            **_AUTHORS,
            "model": "resnet18",
            "model.pretrained": True,
            "mining": "ensemble",
            "lambda_sparse": 1e-09,
            "lr_main": 0.0005,
            "train.lr": 0.001,
            "train.batch_size": 256,
            "train.epochs": 57,
        },
        "bffhq": {
            **_AUTHORS,
            "model": "resnet18",
            "model.pretrained": True,
            "lambda_sparse": 1e-09,
            "lambda_up": 80.0,
            "lr_main": 0.0005,
            "train.lr": 0.001,
            "train.batch_size": 64,
            "train.epochs": 34,
        },
        "celeba": {
            **_AUTHORS,
            "model": "resnet18",
            "model.pretrained": True,
            "lambda_sparse": 5e-06,
            "lambda_up": 20.0,
            "lr_main": 0.0005,
            "train.lr": 0.0001,
            "train.batch_size": 128,
            "train.epochs": 8,
        },
    }

    mining: Literal["wrong", "ensemble"] = option(
        "wrong",
        "conflicting samples: those that the biased network gets wrong, or those whose class had "
        "low probability over all epochs",
    )
    select_with_gce: bool = option(
        True,
        "whether mining=wrong asks a network that is trained with generalised cross-entropy; "
        "false: the classifier itself",
    )
    q: float = option(0.7, "q of the generalised cross-entropy", gt=0, le=1)
    eta: float = option(
        0.05,
        "mining=ensemble learns from samples with a larger probability of the class",
        ge=0,
        lt=1,
    )
    tau: float = option(
        0.8,
        "mining=ensemble takes samples whose mean of 1 - p over the epochs is larger",
        ge=0,
        le=1,
    )
    pruning_iter: int = option(2000, "steps in which the gates are learned", ge=1)
    lr_prune: float = option(0.01, "learning rate of the gates, with Adam", gt=0)
    prune_weight: float = option(
        80.0,
        "how often a mined sample is drawn while the gates are learned, relative to another; 1: as "
        "often (uniform_weight of the released code)",
        gt=0,
        search=choice(10, 30, 50, 80),
    )
    lambda_sparse: float = option(
        1e-8, "weight of the sum of the gates' parameters", ge=0, search=log(1e-9, 1e-6)
    )
    lambda_con: float = option(
        0.05, "weight of the contrast, in both stages", ge=0, search=log(0.005, 0.5)
    )
    temperature: float = option(0.07, "temperature T of the contrast", gt=0)
    lambda_up: float | None = option(
        None,
        "how often a mined sample is drawn in the last stage, relative to another; none: as in "
        "method upweight, by the fraction that was mined",
        gt=0,
    )
    retrain_iter: int | None = option(
        None, "steps of the last stage; none: the epochs of the run", ge=1
    )
    lr_main: float | None = option(
        None, "learning rate of the last stage; none: that of the run", gt=0
    )
    reinitialize: bool = option(
        False, "whether the last stage begins from the initial weights, not from the trained ones"
    )

    def fit(self, lab: Lab) -> Trained:
        """Mine conflicting samples, learn the gates, then train under the mask."""
        from debiasbench import sparsity

        network = lab.model()
        lab.head(network)  # raises before the training if the network has no features
        initial = copy.deepcopy(network)
        first, scores, mined = self._mined(lab, network)
        lab.inferred(conflict=mined, scores=scores)

        gates = GatedContrast(
            copy.deepcopy(first.objective.network),
            lab.features_of,
            lambda_sparse=self.lambda_sparse,
            lambda_con=self.lambda_con,
            temperature=self.temperature,
        )
        pruned = lab.train(
            gates,
            weights=upweight_conflict(mined, self.prune_weight),
            extra={"mined": mined},
            steps=self.pruning_iter,
            optimizer="adam",
            lr=self.lr_prune,
            weight_decay=0.0,
            schedule="constant",
            warmup=0.0,
            name="prune",
            select=False,
        ).objective
        assert isinstance(pruned, GatedContrast)

        start = initial if self.reinitialize else copy.deepcopy(pruned.network)
        loss = Contrast(start, lab.features_of, self.lambda_con, self.temperature)
        masks = {f"network.{name}": mask for name, mask in pruned.masks().items()}
        return lab.train(
            loss,
            weights=upweight_conflict(mined, self.lambda_up),
            extra={"mined": mined},
            steps=self.retrain_iter,
            components=[sparsity.Sparsify(sparsity.Static(), masks=masks)],
            lr=self.lr_main or lab.training.lr,
            name="train",
        )

    def _mined(self, lab: Lab, network: nn.Module) -> tuple[Trained, Tensor, Tensor]:
        """Train the classifier and the biased network; return scores and the mined samples.

        Scores are (N,) in [0, 1], larger for samples that rather conflict; mined is (N,) bool.
        """
        y = lab.labels("train")

        def failing(biased: nn.Module) -> Tensor:
            p = lab.predict(biased, "train").softmax(1)
            return 1 - p.gather(1, y[:, None])[:, 0]  # (N,)

        def add_scores(_epoch: int, objective: Objective) -> None:
            assert isinstance(objective, Mining)
            objective.score.add_(failing(objective.biased).to(objective.score) / epochs)

        epochs = lab.training.epochs
        eta = self.eta if self.mining == "ensemble" else None
        loss = Mining(network, lab.model(), len(y), q=self.q, eta=eta)
        every = add_scores if self.mining == "ensemble" else None
        first = lab.train(loss, each_epoch=every, name="mine", select=False)
        trained = first.objective
        assert isinstance(trained, Mining)
        if self.mining == "ensemble":
            scores = trained.score.cpu()
            return first, scores, scores > self.tau
        teacher = trained.biased if self.select_with_gce else trained.network
        wrong = lab.predict(teacher, "train").argmax(1) != y
        return first, failing(teacher), wrong


class Mining(Objective):
    """Cross-entropy of the classifier, and the loss of a second network that amplifies the bias.

    `samples`: N, of the training split. `q`: of the generalised cross-entropy of the biased
    network. `eta`: if it is not None, the biased network instead learns by cross-entropy from the
    samples of which it gives the class a probability above `eta`; from all, if a batch has none.
    """

    capturable: ClassVar[bool | None] = True
    score: Tensor  # (N,), mean of 1 - p over the epochs so far

    def __init__(
        self, network: nn.Module, biased: nn.Module, samples: int, *, q: float, eta: float | None
    ) -> None:
        super().__init__(network)
        self.biased, self.q, self.eta = biased, q, eta
        self.register_buffer("score", torch.zeros(samples))

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum of both losses; their gradients do not mix."""
        plain = F.cross_entropy(self.network(batch.x), batch.y)
        return plain + self.amplified(self.biased(batch.x), batch.y)

    def amplified(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the loss of the biased network, for logits (B, C)."""
        if self.eta is None:
            return gce(logits, y, self.q).mean()
        losses = F.cross_entropy(logits.float(), y, reduction="none")  # (B,), -log p
        sure = (losses.detach().neg().exp() > self.eta).float()
        sure = torch.where(sure.sum() > 0, sure, 1.0)
        return (sure * losses).sum() / sure.sum()


class Contrast(Objective):
    """Cross-entropy, and contrast with mined samples of the same class.

    `features_of`: returns logits (B, C) and features (B, D) of a network for inputs. `lambda_con`:
    weight of the contrast. `temperature`: T > 0. Batches have `mined`, (B,) bool.
    """

    capturable: ClassVar[bool | None] = True

    def __init__(
        self, network: nn.Module, features_of: FeaturesOf, lambda_con: float, temperature: float
    ) -> None:
        super().__init__(network)
        self.features_of, self.lambda_con = features_of, lambda_con
        self.temperature = temperature

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy and the contrast."""
        return self.loss(*self.features_of(self.network, batch.x), batch)

    def loss(self, logits: Tensor, features: Tensor, batch: Batch) -> Tensor:
        """Return the loss for logits (B, C) and features (B, D)."""
        contrast = batch_contrast(features, batch.y, batch.mined, self.temperature)
        return F.cross_entropy(logits, batch.y) + self.lambda_con * contrast


class GatedContrast(Contrast):
    """The same loss of a network whose weights are multiplied by gates; only these are trained.

    There is one gate for each weight of every convolution and linear layer. In training, it is open
    with probability sigmoid(sigmoid(pi)), and the gradient of the parameter pi is that of a smooth
    gate (straight-through). Otherwise it is open if pi >= 0. `lambda_sparse`: weight of the sum of
    all pi.
    """

    capturable: ClassVar[bool | None] = True

    def __init__(
        self,
        network: nn.Module,
        features_of: FeaturesOf,
        *,
        lambda_sparse: float,
        lambda_con: float,
        temperature: float,
        initial: float = 1.5,
    ) -> None:
        from debiasbench.sparsity import maskable

        super().__init__(network, features_of, lambda_con, temperature)
        self.lambda_sparse = lambda_sparse
        weights = {n: w for n, w in maskable(network).items() if w.requires_grad}
        self.names = list(weights)
        self.pi = nn.ParameterList(
            nn.Parameter(torch.full_like(w, initial, requires_grad=True)) for w in weights.values()
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss with gates that are drawn from torch's global generator."""
        gates = [sampled_gate(pi) for pi in self.pi]
        model = _Calling(self.network, self.features_of)
        weights = {f"network.{name}": w for name, w in self._gated(gates).items()}
        logits, features = functional_call(model, weights, (batch.x,))
        return (
            self.loss(logits, features, batch)
            + self.lambda_sparse * torch.stack([pi.sum() for pi in self.pi]).sum()
        )

    def predict(self, x: Inputs) -> Tensor:
        """Return logits (B, C) under the fixed mask."""
        gates = [mask.float() for mask in self.masks().values()]
        logits: Tensor = functional_call(self.network, self._gated(gates), (x,))
        return logits

    def masks(self) -> dict[str, Tensor]:
        """Return the fixed mask of each weight, bool, by its name in the network.

        A layer without open gates would return constants: it keeps its largest pi.
        """
        values = zip(self.names, self.pi, strict=True)
        return {n: (pi >= pi.max().clamp(max=0)).detach() for n, pi in values}

    def _gated(self, gates: list[Tensor]) -> dict[str, Tensor]:
        """Return all parameters of the network without gradients, weights times gates."""
        own = {name: p.detach() for name, p in self.network.named_parameters()}
        return own | {n: own[n] * gate for n, gate in zip(self.names, gates, strict=True)}


class _Calling(nn.Module):
    """A network whose call returns logits and features, for `functional_call`."""

    def __init__(self, network: nn.Module, features_of: FeaturesOf) -> None:
        super().__init__()
        self.network, self.features_of = network, features_of

    def forward(self, x: Inputs) -> tuple[Tensor, Tensor]:
        return self.features_of(self.network, x)


def sampled_gate(pi: Tensor) -> Tensor:
    """Return gates, 0 or 1, of the shape of `pi`, with the gradient of a smooth gate.

    A gate is open if sigmoid(sigmoid(pi) + logistic noise) > 0.5.
    """
    noise = torch.rand_like(pi).logit()
    smooth = (pi.sigmoid() + noise).sigmoid()
    return (smooth > 0.5).float() + (smooth - smooth.detach())
