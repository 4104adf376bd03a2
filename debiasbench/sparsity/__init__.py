"""Dynamic sparse training with exact budgets; a library that imports nothing above itself."""

from debiasbench.sparsity.distributions import SparsityTooHigh as SparsityTooHigh
from debiasbench.sparsity.distributions import allocate as allocate
from debiasbench.sparsity.dynamic import DynamicSparsity as DynamicSparsity
from debiasbench.sparsity.flops import Flops as Flops
from debiasbench.sparsity.flops import count_flops as count_flops
from debiasbench.sparsity.params import maskable as maskable
from debiasbench.sparsity.topology import drop_and_grow as drop_and_grow
