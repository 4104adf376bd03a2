"""debiasbench: compare debiasing methods honestly.

What a plugin needs is importable here, without torch; a loss of its own derives from
`debiasbench.core.objective.Objective`, its tests call `debiasbench.testing`.
"""

from debiasbench.common.options import option as option
from debiasbench.core.data import Batch as Batch
from debiasbench.core.data import Dataset as Dataset
from debiasbench.core.data import Split as Split
from debiasbench.core.data import Task as Task
from debiasbench.core.hooks import Register as Register
from debiasbench.core.hooks import hookimpl as hookimpl
from debiasbench.core.method import Method as Method
from debiasbench.core.model import Model as Model
from debiasbench.core.model import Shape as Shape
from debiasbench.core.supervision import Supervision as Supervision
