"""Checks of records, one topic a file; each yields `Finding`s with a code."""
