"""How fast it is here: benchmark, baselines, step profile and forecast."""
