"""Clusters of samples, and how well they are separated: k-means, mixtures and silhouettes.

Results do not depend on the number of threads: scikit-learn computes with one, since the order in
which its threads add up changes the last bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Kind = Literal["kmeans", "gmm"]
Mean = Literal["samples", "clusters"]

SAMPLES = 5000
"""Silhouettes need all pairs of samples, so they are computed of at most this many."""

LEAST_SHARE, LEAST = 0.005, 25  # samples of a class that a part of a cluster needs


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of N samples, numbered from 0; none is empty.

    `of`: (N,) the cluster of each sample. `assign`: maps other samples (M, D) to clusters (M,).
    """

    of: Ints
    assign: Callable[[Floats], Ints]

    def __len__(self) -> int:
        return int(self.of.max()) + 1


def cluster(x: Floats, k: int, *, kind: Kind, restarts: int, seed: int) -> Clusters:
    """Divide samples `x` (N, D) into k clusters, or fewer if there are fewer different samples.

    `kind`: "kmeans", or "gmm", a mixture of Gaussians with full covariances. `restarts`: the
    number of random beginnings, of which the best is taken. `seed`: in [0, 2^32).
    """
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    k = min(k, len(x))
    if k < 2:
        return Clusters(np.zeros(len(x), np.int64), lambda other: np.zeros(len(other), np.int64))
    model: Any
    if kind == "kmeans":
        model = KMeans(k, n_init=restarts, random_state=seed)
    else:
        x = x.astype(np.float64)  # covariances of single precision may not be positive
        model = GaussianMixture(k, n_init=restarts, random_state=seed)
    with _quiet_and_repeatable():
        found = model.fit(x).predict(x)
    used, of = np.unique(found, return_inverse=True)

    def assign(other: Floats) -> Ints:
        if not len(other):
            return np.zeros(0, np.int64)
        with _quiet_and_repeatable():
            raw = model.predict(other.astype(x.dtype))
        # a component that is nobody's most likely one has no number; its samples join the first
        index = np.searchsorted(used, raw).clip(max=len(used) - 1)
        return np.where(used[index] == raw, index, 0).astype(np.int64)

    return Clusters(of.astype(np.int64), assign)


def silhouettes(x: Floats, clusters: Ints, *, seed: int, limit: int = SAMPLES) -> Floats:
    """Return (N,) silhouettes in [-1, 1] of samples `x` (N, D); NaN for those left out.

    If there are more than `limit` samples, `limit` of them are drawn by `seed`, the same ones for
    any `clusters` (N,). A sample that is alone in its cluster has 0, and with one cluster all have
    0.

    Rousseeuw. Silhouettes. Journal of Computational and Applied Mathematics 20, 1987.
    """
    from sklearn.metrics import silhouette_samples

    values = np.full(len(x), np.nan)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(x))[:limit])
    different = len(np.unique(clusters[chosen]))
    if 1 < different < len(chosen):
        with _quiet_and_repeatable():
            values[chosen] = silhouette_samples(x[chosen], clusters[chosen])
    else:
        values[chosen] = 0.0
    return values


def silhouette(x: Floats, clusters: Ints, *, mean: Mean, seed: int, limit: int = SAMPLES) -> float:
    """Return the mean silhouette in [-1, 1] of samples `x` (N, D) in `clusters` (N,).

    `mean`: "samples", over all samples, or "clusters", over the means of the clusters, in which
    small clusters count as much as large ones. `limit` and `seed`: see `silhouettes`.
    """
    values = silhouettes(x, clusters, seed=seed, limit=limit)
    known = ~np.isnan(values)
    if mean == "samples":
        return float(values[known].mean())
    total = np.bincount(clusters[known], weights=values[known])
    count = np.bincount(clusters[known])
    return float((total[count > 0] / count[count > 0]).mean())


def search(
    x: Floats,
    ks: Iterable[int],
    *,
    kind: Kind,
    mean: Mean,
    restarts: int,
    seed: int,
    last_of_equal: bool = False,
) -> tuple[Clusters, float]:
    """Return the clusters of `x` (N, D) with the largest mean silhouette, and this silhouette.

    `ks`: the candidate numbers of clusters. `last_of_equal`: which of equally good ones is taken.
    For the others see `cluster` and `silhouette`.
    """
    best: tuple[Clusters, float] | None = None
    for k in ks:
        found = cluster(x, k, kind=kind, restarts=restarts, seed=seed)
        score = silhouette(x, found.of, mean=mean, seed=seed)
        if best is None or score > best[1] or (last_of_equal and score == best[1]):
            best = found, score
        if k >= len(x):
            break  # there cannot be more clusters than samples
    if best is None:
        raise ValueError("ks is empty: give one number of clusters or more")
    return best


def overclustered(
    x: Floats,
    base: Clusters,
    losses: Floats,
    val: Floats,
    *,
    kind: Kind,
    factor: int,
    restarts: int,
    min_val: int,
    seed: int,
) -> Ints:
    """Return (n,) clusters of a class: those of `base`, less the parts that were split off.

    Every cluster is divided into `factor` parts. A part becomes a cluster if its silhouette is
    positive and larger than that of the same samples before, its mean loss is not below that of its
    cluster, and it has enough samples: max(0.005 n, 25), and `min_val` of validation.

    `x`: (n, D). `losses`: (n,). `val`: (m, D) validation samples of the class. For the others see
    `cluster`.

    Sohoni et al. No Subclass Left Behind. NeurIPS 2020 (appendix, and their code).
    """
    stride = factor + 1
    rest, val_base = base.of * stride, base.assign(val)  # (n,), (m,)
    parts, val_parts = rest.copy(), val_base * stride
    for i in range(len(base)):
        members, val_members = base.of == i, val_base == i
        split = cluster(x[members], factor, kind=kind, restarts=restarts, seed=seed)
        parts[members] += 1 + split.of
        val_parts[val_members] += 1 + split.assign(val[val_members])
    before, after = silhouettes(x, base.of, seed=seed), silhouettes(x, parts, seed=seed)
    for j in np.unique(parts):
        part, whole = parts == j, base.of == j // stride
        known = part & ~np.isnan(after)  # silhouettes of large classes are those of a sample
        kept = (
            bool(known.any())
            and after[known].mean() > max(before[known].mean(), 0)
            and losses[part].mean() >= losses[whole].mean()
            and part.sum() >= max(LEAST_SHARE * len(x), LEAST)
            and (val_parts == j).sum() >= min_val
        )
        rest[part] = j if kept else rest[part]
    return np.unique(rest, return_inverse=True)[1].astype(np.int64)


@cache
def _libraries() -> ThreadpoolController:
    """Find the libraries whose threads are limited; a search of clusters would do it for each k."""
    import sklearn.cluster
    import sklearn.metrics
    import sklearn.mixture  # noqa: F401 - a library is found if it is loaded
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def _quiet_and_repeatable() -> Iterator[None]:
    """Compute with one thread, without warnings of samples that are equal or of slow progress."""
    from sklearn.exceptions import ConvergenceWarning

    with _libraries().limit(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
