"""Benchmarks: erulab against the plain way of doing the same, as ratios in one run."""
