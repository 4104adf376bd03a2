"""debiasbench: compare debiasing methods honestly.

What a plugin needs is importable here, without torch; a loss of its own derives from
`debiasbench.objective.Objective`, its tests call `debiasbench.testing`.
"""

from debiasbench.data import Batch as Batch
from debiasbench.data import Dataset as Dataset
from debiasbench.data import Split as Split
from debiasbench.data import Task as Task
from debiasbench.hookspecs import Register as Register
from debiasbench.hookspecs import hookimpl as hookimpl
from debiasbench.method import Method as Method
from debiasbench.method import Supervision as Supervision
from debiasbench.model import Model as Model
from debiasbench.model import Shape as Shape
from debiasbench.options import option as option
