"""`debiasbench results`: what a folder of records holds."""

from __future__ import annotations

import click

from debiasbench.cli.parsing import Group
from debiasbench.cli.results.attributes import attributes
from debiasbench.cli.results.copy import pull, push
from debiasbench.cli.results.diff import diff
from debiasbench.cli.results.ls import ls
from debiasbench.cli.results.pack import pack
from debiasbench.cli.results.rm import rm
from debiasbench.cli.results.show import show


@click.group(cls=Group)
def results() -> None:
    """List, describe, compare, copy, pack and remove records."""


for command in (ls, show, attributes, diff, rm, pack, push, pull):
    results.add_command(command)
