"""One model on a benchmark's suites: the figures of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.evaluation import open_unlearning
from erulab.evaluation.generation import generate
from erulab.evaluation.protocols import PROTOCOLS, Asking
from erulab.evaluation.protocols.base import Replies, key
from erulab.evaluation.scoring import score
from erulab.models.loaded import LoadedModel
from erulab.options import Compat, EvaluationOptions
from erulab.ranks import Ranks

FORGET_ROLES = (Role.FORGET, Role.HELDOUT)


@dataclass(frozen=True)
class RowScore:
    """What one model makes of one row: the figures of its suite's measure, as far as the row has the data for them.

    compat: figures as `evaluation.compat` computes them.
    """

    id: str
    suite: str
    role: str
    fact: str
    author: str
    figures: dict[str, float]
    response: str = ""
    compat: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(plain: dict[str, Any]) -> RowScore:
        return RowScore(**plain)


def evaluate(
    loaded: LoadedModel, suites: Sequence[Suite], options: EvaluationOptions, ranks: Ranks, *, headline: bool = False
) -> list[RowScore]:
    """Scores every row of the suites, in order; every rank gets all of them.

    Args:
        headline: see `Asking`.
    """
    asking = Asking(loaded.chat, options, headline)
    picked = [(suite, row) for suite in suites for row in rows_of(suite, options)]
    questions = [PROTOCOLS[type(suite.measure)](suite.measure, row, asking) for suite, row in picked]
    # One pass for all suites and figures. Keyed by what is asked: many rows ask the same.
    requests = [request for question in questions for request in question.requests]
    spread = {request for question in questions if question.spread for request in question.requests}
    scores = score(loaded.policy, requests, loaded.pad_id, options.batch_tokens, ranks, spread) if requests else []
    known = dict(zip(map(key, requests), scores, strict=True))
    prompts = [question.prompt for question in questions if question.prompt is not None]
    responses = iter(generate(loaded, prompts, options.batch_tokens, ranks) if prompts else [])
    compat: list[dict[str, float]] = [{} for _ in picked]
    if options.compat is Compat.open_unlearning and not headline:
        compat = open_unlearning.figures(loaded, picked, options, ranks)
    rows = []
    for (suite, row), question, theirs in zip(picked, questions, compat, strict=True):
        response = None if question.prompt is None else next(responses)
        figures = question.figures(Replies(known, response))
        fact = row.fact_id
        rows.append(RowScore(row.id, suite.name, suite.role.value, fact, row.author, figures, response or "", theirs))
    return rows


def named(benchmark: Benchmark, names: Sequence[str] | None) -> tuple[Suite, ...]:
    """The suites that `evaluation.suites` names: exactly or up to a *, `forget*` or `tofu/forget*`. None: all."""
    if names is None:
        return benchmark.suites

    def meant(suite: Suite, name: str) -> bool:
        full = f"{benchmark.name}/{suite.name}"
        return any(known.startswith(name[:-1]) if name.endswith("*") else known == name for known in (suite.name, full))

    return tuple(suite for suite in benchmark.suites if any(meant(suite, name) for name in names))


def rows_of(suite: Suite, options: EvaluationOptions) -> Sequence[Row]:
    """The rows that are evaluated: all of a forget suite, at most `evaluation.rows` of another."""
    return suite.rows if suite.role in FORGET_ROLES else suite.rows[: options.rows]


def knowledge_rows(rows: Sequence[RowScore]) -> list[RowScore]:
    """The rows whose log-odds tell what is still known of the forget facts."""
    roles = {role.value for role in FORGET_ROLES}
    return [row for row in rows if row.role in roles and "log_odds" in row.figures]
