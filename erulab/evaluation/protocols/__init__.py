"""The benchmarks' protocols, one file per measure: what a row requests of a model, and the figures of the results."""

from erulab.evaluation.protocols import answers, choice, generated, texts

__all__ = ["answers", "choice", "generated", "texts"]
