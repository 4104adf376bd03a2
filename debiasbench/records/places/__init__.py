"""Records in two places: a local folder, and another one that fsspec can reach."""
