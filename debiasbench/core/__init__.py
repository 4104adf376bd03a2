"""The interfaces for plugin authors: data sets, models, methods, and what methods work with."""
