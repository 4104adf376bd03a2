"""The known sources of MNIST and CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import pytest

from debiasbench.core.download import Download
from debiasbench.datasets._sources import CIFAR10, MNIST
from debiasbench.datasets.cmnist import CMNIST


def test_mnist_downloads_give_the_files_that_cmnist_reads(tmp_path: Path) -> None:
    given = {tmp_path / name for download in MNIST for name in download.gives}
    assert given == set(CMNIST().sources(tmp_path))


@pytest.mark.parametrize("download", [*MNIST, *CIFAR10], ids=lambda d: d.path)
def test_known_downloads_declare_digest_and_size(download: Download) -> None:
    assert download.sha256
    assert download.size
    assert download.unpacked
    name = download.path.rpartition("/")[2]
    assert all(url.startswith("https://") and url.endswith(name) for url in download.urls)
