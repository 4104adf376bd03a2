"""What a plugin author reads, and nothing else: the contracts of data sets, models and methods."""
