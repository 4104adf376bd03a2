"""`python -m debiasbench` is the command line."""

from debiasbench.cli import main

main()
