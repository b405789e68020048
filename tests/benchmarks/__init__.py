"""Measurements, beside stock aiflows on the same core: `python -m tests.benchmarks`."""
