"""Specs of runs, the registries that resolve their names, and suites of them."""
