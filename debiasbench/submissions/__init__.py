"""Submissions: folders of records by strangers, checked without running their code."""
