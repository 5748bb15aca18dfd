"""erulab: remove specific knowledge from a language model, and prove that it is gone and stays gone."""

__version__ = "0.1.0"
