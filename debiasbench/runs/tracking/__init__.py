"""Trackers of plugins: each has a process of its own, which is told what runs do."""
