"""What a row asks of a model, and how it reads the replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from erulab.data.rows import Row
from erulab.evaluation.generation import Prompt
from erulab.evaluation.scoring import Score
from erulab.options import EvaluationOptions
from erulab.tokens.batch import Encoded
from erulab.tokens.chat import ChatFormat


@dataclass(frozen=True)
class Asking:
    """How a model is asked.

    headline: only what the attacks' figures are made of: a row with candidate values has no truth ratio then, and costs
        one forward, not five.
    """

    chat: ChatFormat
    options: EvaluationOptions
    headline: bool = False

    def encode(self, row: Row, response: str, span: tuple[int, int] | None = None) -> Encoded:
        """A teacher-forced request: the row's prompt with a response."""
        return self.chat.encode(row, response, span)

    def prompt(self, row: Row, max_new_tokens: int, stops: tuple[str, ...] = ()) -> Prompt:
        """The row's prompt, to be continued as far as the model can read: some have no positions beyond."""
        ids = tuple(self.chat.encode_prompt(row))
        return Prompt(ids, min(max_new_tokens, self.chat.limit(None) - len(ids)), stops)


@dataclass(frozen=True)
class Replies:
    """What a model made of one row's requests, and its response where one was asked for."""

    scores: Mapping[tuple[tuple[int, ...], int, int], Score]
    response: str | None

    def of(self, request: Encoded) -> Score:
        """The reply to a teacher-forced request: the same for all rows that ask the same."""
        return self.scores[key(request)]


@dataclass(frozen=True)
class Question:
    """What one row asks: teacher-forced requests, a prompt to be continued, and the figures made of the replies."""

    requests: tuple[Encoded, ...]
    prompt: Prompt | None
    figures: Callable[[Replies], dict[str, float]]
    spread: bool = False  # the requests' tokens need the moments of the model's log-probabilities


def key(request: Encoded) -> tuple[tuple[int, ...], int, int]:
    """All that a request's score depends on."""
    return request.ids, request.start, request.end
