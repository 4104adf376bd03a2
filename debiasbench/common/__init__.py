"""Basics that all packages use: errors, options, canonical JSON, files, processes."""
