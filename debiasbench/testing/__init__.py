"""Checks for plugin authors: of plugins, methods, models, data sets, updaters and distributions.

For example, `check_method(MyMethod())` raises `AssertionError` if the method does not meet a
requirement; the message says which one, and what to do.
"""

from debiasbench.testing.datasets import check_dataset as check_dataset
from debiasbench.testing.methods import check_method as check_method
from debiasbench.testing.models import check_model as check_model
from debiasbench.testing.plugins import check_plugin as check_plugin
from debiasbench.testing.sparsity import check_distribution as check_distribution
from debiasbench.testing.sparsity import check_updater as check_updater
from debiasbench.testing.toy import toy_task as toy_task
