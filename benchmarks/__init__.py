"""Timing of the parts that decide how long a reconstruction takes: ``python -m benchmarks``."""
