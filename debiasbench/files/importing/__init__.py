"""Import a user's own images, texts or tables as a data set; importable without torch."""

from debiasbench.files.importing.folder import FOLDER as FOLDER
from debiasbench.files.importing.folder import find as find
from debiasbench.files.importing.folder import missing as missing
from debiasbench.files.importing.folder import names as names
from debiasbench.files.importing.folder import where as where
from debiasbench.files.importing.importer import Finished as Finished
from debiasbench.files.importing.importer import import_data as import_data
from debiasbench.files.importing.removal import check_removable as check_removable
from debiasbench.files.importing.removal import remove as remove
from debiasbench.files.importing.source import EVERY as EVERY
from debiasbench.files.importing.source import BadRows as BadRows
from debiasbench.files.importing.source import Problem as Problem
from debiasbench.files.importing.source import Source as Source
from debiasbench.files.importing.source import bad_rows as bad_rows
