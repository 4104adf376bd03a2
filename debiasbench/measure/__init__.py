"""Measure speed on this machine: benchmark, baselines, step profile and forecast."""
