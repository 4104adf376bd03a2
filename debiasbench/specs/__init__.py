"""What is to be run: specs, the registries that names are resolved in, and suites."""
