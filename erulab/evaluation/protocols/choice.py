"""Multiple choice by log-probability: WMDP's and MMLU's letters, TruthfulQA's and ARC's answers."""

from __future__ import annotations

from erulab.data.measures import Choice
from erulab.data.rows import Row
from erulab.evaluation import metrics
from erulab.evaluation.protocols.base import Asking, Question, Replies


def choice(measure: Choice, row: Row, asking: Asking) -> Question:
    """Figures: accuracy, log_odds. The sum over a continuation's tokens decides, as lm-evaluation-harness's `acc`."""
    right = asking.encode(row, row.response)
    wrong = [asking.encode(row, option) for option in row.options]

    def figures(replies: Replies) -> dict[str, float]:
        own, others = replies.of(right).nll, [replies.of(option).nll for option in wrong]
        return {"accuracy": float(own < min(others)), "log_odds": metrics.log_odds(own, others)}

    return Question((right, *wrong), None, figures)
