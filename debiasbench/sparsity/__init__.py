"""Dynamic sparse training with exact numbers of weights, for any PyTorch training loop.

sparse = RigL(density=0.05).attach(model, optimizer, total_steps=10_000)
for x, y in loader:  # the loop does not change
    loss(model(x), y).backward(); optimizer.step(); optimizer.zero_grad()
"""

from debiasbench.sparsity.attach import SparseTraining as SparseTraining
from debiasbench.sparsity.compaction.compact import compact as compact
from debiasbench.sparsity.component import Sparsify as Sparsify
from debiasbench.sparsity.connectivity import connectivity as connectivity
from debiasbench.sparsity.criteria import global_masks as global_masks
from debiasbench.sparsity.criteria import grasp_scores as grasp_scores
from debiasbench.sparsity.criteria import magnitude_scores as magnitude_scores
from debiasbench.sparsity.criteria import snip_scores as snip_scores
from debiasbench.sparsity.csr import to_csr as to_csr
from debiasbench.sparsity.distributions import Shares as Shares
from debiasbench.sparsity.distributions import allocate as allocate
from debiasbench.sparsity.errors import CannotCompact as CannotCompact
from debiasbench.sparsity.errors import NonFiniteGradient as NonFiniteGradient
from debiasbench.sparsity.errors import NotAttached as NotAttached
from debiasbench.sparsity.errors import SparsityError as SparsityError
from debiasbench.sparsity.errors import SparsityTooHigh as SparsityTooHigh
from debiasbench.sparsity.flops import Flops as Flops
from debiasbench.sparsity.flops import count_flops as count_flops
from debiasbench.sparsity.layer import Layer as Layer
from debiasbench.sparsity.packed import pack_state as pack_state
from debiasbench.sparsity.packed import unpack_state as unpack_state
from debiasbench.sparsity.params import maskable as maskable
from debiasbench.sparsity.presets import PRESETS as PRESETS
from debiasbench.sparsity.presets import REST as REST
from debiasbench.sparsity.presets import RESTReleased as RESTReleased
from debiasbench.sparsity.presets import RigLReleased as RigLReleased
from debiasbench.sparsity.semi_structured import to_semi_structured as to_semi_structured
from debiasbench.sparsity.settings import setting as setting
from debiasbench.sparsity.stats import statistics as statistics
from debiasbench.sparsity.topology import drop_and_grow as drop_and_grow
from debiasbench.sparsity.updater import Updater as Updater
from debiasbench.sparsity.updaters import GMP as GMP
from debiasbench.sparsity.updaters import ITOP as ITOP
from debiasbench.sparsity.updaters import MEST as MEST
from debiasbench.sparsity.updaters import SET as SET
from debiasbench.sparsity.updaters import SNFS as SNFS
from debiasbench.sparsity.updaters import GraNet as GraNet
from debiasbench.sparsity.updaters import RigL as RigL
from debiasbench.sparsity.updaters import SRigL as SRigL
from debiasbench.sparsity.updaters import Static as Static
