"""Two processes that train one network in data parallel hold equal masks."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from debiasbench.sparsity import REST, SparsityError
from debiasbench.sparsity.masks import digest
from tests import warm

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch.distributed is not built in"
)


def work(number: str, folder: str) -> None:
    rank = int(number)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    Path(folder, f"masks-{rank}").write_text(train(rank, seed=0))
    try:
        train(rank, seed=rank)
    except SparsityError as error:
        Path(folder, f"error-{rank}").write_text(str(error))
    torch.distributed.destroy_process_group()


def train(rank: int, seed: int) -> str:
    """Train ten steps on different samples for each rank; return the digest of the masks."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 3))
    parallel = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sparse = REST(0.2, every="2", stop=1.0).attach(net, optimizer, total_steps=10, seed=seed)
    first = digest(sparse.masks)
    own = torch.Generator().manual_seed(100 + rank)
    for _ in range(10):
        x = torch.randn(16, 10, generator=own)
        optimizer.zero_grad()
        F.cross_entropy(parallel(x), (x[:, 0] > 0).long()).backward()
        optimizer.step()
    assert digest(sparse.masks) != first
    return digest(sparse.masks)


@pytest.mark.slow
def test_ranks_hold_equal_masks_and_say_so_when_they_do_not(tmp_path: Path) -> None:
    code = "import sys; from tests.sparsity import test_parallel as t; t.work(*sys.argv[1:])"
    with ExitStack() as stack:
        ranks = [stack.enter_context(warm.Process(code, rank, tmp_path)) for rank in range(2)]
        assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].stderr
    one, two = ((tmp_path / f"masks-{rank}").read_text() for rank in range(2))
    assert one == two
    for rank in range(2):
        assert "Masks differ between ranks" in (tmp_path / f"error-{rank}").read_text()
