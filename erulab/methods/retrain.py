"""retrain: the oracle as a method. The base model fine-tuned on retain rows only, the gold standard of forgetting.

    L = sum over retain rows of s / sum over retain rows of T,   from the base model, with the options of `target`

There is no unlearning and no forget loss: the run's "unlearned" model is its oracle, under the same cache key.
"""

from __future__ import annotations

from dataclasses import dataclass

from erulab.registry import methods


@dataclass
class RetrainOptions:
    name: str = "retrain"


@methods.register("retrain", RetrainOptions, needs="retain rows")
class Retrain:
    """The oracle as a method: never sees a forget row."""

    stands_for = "oracle"

    def __init__(self, options: RetrainOptions) -> None:
        self.options = options
