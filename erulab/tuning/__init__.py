"""Searches settings with Optuna: spaces, the objective of a run, a search that several processes share, its results."""
