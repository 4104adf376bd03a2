"""A user's own images into a data set that `run` takes; importable without torch."""

from debiasbench.datasets.imported import FOLDER as FOLDER
from debiasbench.datasets.imported import find as find
from debiasbench.datasets.imported import names as names
from debiasbench.datasets.imported import where as where
from debiasbench.importing.importer import Finished as Finished
from debiasbench.importing.importer import import_data as import_data
from debiasbench.importing.source import BadRows as BadRows
from debiasbench.importing.source import Problem as Problem
from debiasbench.importing.source import Source as Source
from debiasbench.importing.source import bad_rows as bad_rows
