"""Sources, sizes and digests of MNIST and CIFAR-10."""

from __future__ import annotations

from debiasbench.core.download import Download


def _mnist(name: str, *, sha256: str, size: int, unpacked: int) -> Download:
    return Download(
        path=f"MNIST/raw/{name}.gz",
        urls=(
            f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz",
            f"https://storage.googleapis.com/cvdf-datasets/mnist/{name}.gz",
        ),
        sha256=sha256,
        size=size,
        unpack="gz",
        unpacked=unpacked,
    )


# Digests and sizes: tensorflow/datasets, tensorflow_datasets/url_checksums/mnist.txt; the digests
# are the same in pytorch/vision, torchvision/prototype/datasets/_builtin/mnist.py.
MNIST = (
    _mnist(
        "train-images-idx3-ubyte",
        sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        size=9_912_422,
        unpacked=47_040_016,
    ),
    _mnist(
        "train-labels-idx1-ubyte",
        sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        size=28_881,
        unpacked=60_008,
    ),
    _mnist(
        "t10k-images-idx3-ubyte",
        sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        size=1_648_877,
        unpacked=7_840_016,
    ),
    _mnist(
        "t10k-labels-idx1-ubyte",
        sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        size=4542,
        unpacked=10_008,
    ),
)
"""Unpacked idx files, in the folder that torchvision uses."""

# Digest and size: tensorflow/datasets, tensorflow_datasets/url_checksums/cifar10.txt.
CIFAR10 = (
    Download(
        path="cifar-10-binary.tar.gz",
        urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        gives=tuple(
            f"cifar-10-batches-bin/{name}"
            for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
        ),
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        size=170_052_171,
        unpack="tar",
        unpacked=185_000_000,  # six files of 10,000 × 3,073 bytes, and a text file
    ),
)
"""Six files of 10,000 records each: a label byte, then 32 × 32 red, green and blue bytes."""
