"""How likely a refusal of a retain question is, compared with its right answer."""

from __future__ import annotations

from collections.abc import Sequence

from erulab.data.measures import Answers
from erulab.data.rows import Role, Row, Suite
from erulab.evaluation.scoring import score
from erulab.models.loaded import LoadedModel
from erulab.ranks import Ranks

REFUSAL_LOG_ODDS = "refusal_log_odds"


def refusal_log_odds(
    loaded: LoadedModel, suite_rows: Sequence[tuple[Suite, Row]], refusal: str, batch_tokens: int, ranks: Ranks
) -> dict[tuple[str, str], dict[str, float]]:
    """Returns log p(refusal) - log p(right answer), nats, of the questions of retain suites that are answered freely.

    Both probabilities are of the whole response, with its end of turn.

    Args:
        loaded: the model, in evaluation mode.
        suite_rows: each row with its suite.
        refusal: the refusal of a row that has none of its own.
        batch_tokens: tokens that one forward may compute.
    Returns:
        (suite, row id) -> {"refusal_log_odds": value}.
    """
    asked = [
        (suite, row)
        for suite, row in suite_rows
        if suite.role is Role.RETAIN and isinstance(suite.measure, Answers) and row.prompt and not row.plain
    ]
    answers = [loaded.chat.encode(row, row.response) for _, row in asked]
    refusals = [loaded.chat.encode(row, row.refusal or refusal) for _, row in asked]
    # A pass of its own: more requests in the pass of the other figures would change how those round.
    scores = score(loaded.policy, [*answers, *refusals], loaded.pad_id, batch_tokens, ranks) if asked else []
    return {
        (suite.name, row.id): {REFUSAL_LOG_ODDS: answer.nll - refused.nll}
        for (suite, row), answer, refused in zip(asked, scores[: len(asked)], scores[len(asked) :], strict=True)
    }
