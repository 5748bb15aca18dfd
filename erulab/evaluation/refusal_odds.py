"""How likely a refusal of a retain question is, compared with its right answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from erulab.data.measures import Answers
from erulab.data.rows import Role, Row, Suite
from erulab.evaluation.measures import RequestKey, request_key
from erulab.evaluation.scoring import Score
from erulab.tokens.batch import Encoded
from erulab.tokens.chat import ChatFormat

REFUSAL_LOG_ODDS = "refusal_log_odds"


@dataclass(frozen=True)
class RefusalRequests:
    """The right answer and a refusal of a retain question, each with its end of turn."""

    answer: Encoded
    refusal: Encoded

    def figures(self, scores: Mapping[RequestKey, Score]) -> dict[str, float]:
        """Returns log p(refusal) - log p(right answer), nats, as a row's figure."""
        answer, refusal = (scores[request_key(request)].nll for request in (self.answer, self.refusal))
        return {REFUSAL_LOG_ODDS: answer - refusal}


def refusal_requests(
    chat: ChatFormat, suite_rows: Sequence[tuple[Suite, Row]], refusal: str
) -> dict[tuple[str, str], RefusalRequests]:
    """Returns what is requested of the questions of retain suites that are answered freely, by suite and row id.

    Args:
        suite_rows: each row with its suite.
        refusal: the refusal of a row that has none of its own; "": nothing is requested.
    """
    return {
        (suite.name, row.id): RefusalRequests(chat.encode(row, row.response), chat.encode(row, row.refusal or refusal))
        for suite, row in suite_rows
        if refusal and suite.role is Role.RETAIN and isinstance(suite.measure, Answers) and row.prompt and not row.plain
    }
