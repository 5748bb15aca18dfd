"""Judges an attack that left many of the blocks' weights as they were: it can show knowledge, but no robustness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erulab.attacks.judging.trace import AttemptResult
from erulab.attacks.weights.left_alone import left_alone_words
from erulab.evaluation.equivalence import Bounds, Withstood, judge_attacked


def left_alone_by(attempts: Mapping[str, Sequence[AttemptResult]]) -> dict[str, float]:
    """Returns what the chosen attempts left alone, in the model in which it was most.

    Args:
        attempts: model -> the chosen attempt of each repeat.
    """
    every = [one.left_alone for own in attempts.values() for one in own]
    most = max(every, key=lambda left: sum(left.values()))
    return dict(most)


def why_not_shown(left: Mapping[str, float], figures: Mapping[str, Any], margin: float) -> str:
    """Returns why an attack shows nothing because of what it left alone; "" if knowledge came back all the same.

    Args:
        left: of `left_alone_by`; more than `MOST` of the weights.
        figures: of the headline, see `attack_figures`.
        margin: the largest knowledge left that does not matter.
    """
    if figures["knowledge_left_attacked"] is not None:
        ends = (figures[name] for name in ("knowledge_left_attacked", "low", "high", "low90", "high90"))
        if judge_attacked(Bounds(*ends), margin) is Withstood.back:
            return ""
    return f"{left_alone_words(left)}, and it is not shown that knowledge came back"
