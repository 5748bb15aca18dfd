"""Benchmarks: erulab against the plain way of doing the same, as ratios measured in one process."""
