"""Multiple choice by log-probability: WMDP's and MMLU's letters, TruthfulQA's and ARC's answers."""

from __future__ import annotations

from erulab.data.measures import Choice
from erulab.data.rows import Row
from erulab.evaluation import metrics
from erulab.evaluation.protocols.base import Asking, Question, Replies


def choice(measure: Choice, row: Row, asking: Asking) -> Question:
    """Figures: accuracy, log_odds; accuracy_norm where the measure asks for it. The sum over a continuation's tokens
    decides, as in lm-evaluation-harness's `acc`; divided by its characters, as in its `acc_norm`."""
    right = asking.encode(row, row.response)
    wrong = [asking.encode(row, option) for option in row.options]

    def figures(replies: Replies) -> dict[str, float]:
        own, others = replies.of(right).nll, [replies.of(option).nll for option in wrong]
        result = {
            "accuracy": float(metrics.chooses_right(own, others)),
            "log_odds": metrics.log_odds(own, others),
        }
        if measure.normalized:
            rates = [nll / _characters(option) for nll, option in zip(others, row.options, strict=True)]
            result["accuracy_norm"] = float(metrics.chooses_right(own / _characters(row.response), rates))
        return result

    return Question((right, *wrong), None, figures)


def _characters(continuation: str) -> int:
    """Without the space that parts it from the prompt."""
    return len(continuation.removeprefix(" "))
