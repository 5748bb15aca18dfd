"""Multiple choice by log-probability: the letters of WMDP and MMLU, the answers of TruthfulQA and ARC."""

from __future__ import annotations

from erulab.data.measures import Choice
from erulab.data.rows import Row
from erulab.evaluation import metrics
from erulab.evaluation.measures import RequestBuilder, RowRequests, RowResults, measures


@measures.register(Choice)
def request_choice(measure: Choice, row: Row, builder: RequestBuilder) -> RowRequests:
    """Requests the right and the wrong options. Figures: accuracy, log_odds; accuracy_norm if `measure.normalized`.

    The NLL summed over a continuation's tokens decides, as in lm-evaluation-harness's `acc`; for accuracy_norm it is
    divided by the continuation's characters, as in its `acc_norm`.
    """
    right = builder.encode(row, row.response)
    wrong = [builder.encode(row, option) for option in row.options]

    def figures(results: RowResults) -> dict[str, float]:
        own, others = results.of(right).nll, [results.of(option).nll for option in wrong]
        result = {
            "accuracy": float(metrics.chooses_right(own, others)),
            "log_odds": metrics.log_odds(own, others),
        }
        if measure.normalized:
            rates = [nll / _characters(option) for nll, option in zip(others, row.options, strict=True)]
            result["accuracy_norm"] = float(metrics.chooses_right(own / _characters(row.response), rates))
        return result

    return RowRequests((right, *wrong), None, figures)


def _characters(continuation: str) -> int:
    """Counts the characters of a continuation, without the space between it and the prompt."""
    return len(continuation.removeprefix(" "))
