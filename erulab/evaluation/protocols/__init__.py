"""The benchmarks' protocols: what a row asks of a model, and the figures made of the replies. One file a measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from erulab.data.measures import Answers, Choice, Generated, Texts
from erulab.data.rows import Row
from erulab.evaluation.protocols.answers import answers
from erulab.evaluation.protocols.base import Asking, Question
from erulab.evaluation.protocols.choice import choice
from erulab.evaluation.protocols.generated import generated
from erulab.evaluation.protocols.texts import texts

# Measure -> (measure, row, asking) -> question.
PROTOCOLS: dict[type, Callable[[Any, Row, Asking], Question]] = {
    Answers: answers,
    Choice: choice,
    Generated: generated,
    Texts: texts,
}

__all__ = ["PROTOCOLS", "Asking", "Question"]
