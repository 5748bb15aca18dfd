"""Responses that go on from what teacher forcing showed are those that a model generates from the prompt alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from erulab.data.rows import Benchmark, Role, Suite
from erulab.evaluation import evaluate as evaluation
from erulab.evaluation.drafts import begun_prompt
from erulab.evaluation.evaluate import evaluate
from erulab.evaluation.generation import generate
from erulab.evaluation.measures import RowRequests, request_key
from erulab.evaluation.prompt import Draw, Prompt
from erulab.evaluation.scoring import Score, Token
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded

STOP = 9


def begun(prompt: Prompt, *answers: tuple[tuple[int, ...], int], span: int = 0) -> Prompt:
    """Asks with answers of which the first so many tokens are greedy."""
    requests = [
        Encoded("", (*prompt.ids, *ids), len(prompt.ids) + span, len(prompt.ids) + len(ids)) for ids, _ in answers
    ]
    scores = {
        request_key(request): Score(tuple(Token(1.0, i < known) for i in range(request.tokens)))
        for request, (_, known) in zip(requests, answers, strict=True)
    }
    found = begun_prompt(RowRequests(tuple(requests), prompt, lambda results: {}), scores, (STOP,))
    assert found is not None
    return found


def test_the_longest_greedy_opening_is_taken() -> None:
    prompt = Prompt((1, 2), 10)
    assert begun(prompt, ((3, 4, 5), 0)) == prompt
    assert begun(prompt, ((3, 4, 5), 1), ((3, 4, 6, STOP), 2)) == Prompt((1, 2, 3, 4), 8, begun=2)
    assert begun(prompt, ((3, 4, STOP, 7), 4)) == Prompt((1, 2, 3, 4, STOP), 7, begun=3)
    assert begun(replace(prompt, max_new_tokens=2), ((3, 4, 5), 3)) == Prompt((1, 2, 3, 4), 0, begun=2)


def test_other_requests_show_nothing() -> None:
    """A value inside the response, another prompt, and a response that is drawn."""
    prompt = Prompt((1, 2), 10)
    assert begun(prompt, ((3, 4, 5), 2), span=1) == prompt
    drawn = replace(prompt, draw=Draw(1))
    assert begun(drawn, ((3, 4, 5), 3)) == drawn
    other = Encoded("", (1, 7, 3, 4), 2, 4)
    scores = {request_key(other): Score((Token(1.0, True), Token(1.0, True)))}
    assert begun_prompt(RowRequests((other,), prompt, lambda results: {}), scores, (STOP,)) == prompt


@pytest.mark.parametrize("shift", [0, 1])
def test_responses_are_those_of_generation_alone(
    world: Benchmark, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    """Rows whose answers are the model's own responses, cut and continued by those of another row, or whole."""
    rows = world.suite("forget").rows[:6]
    options = EvaluationOptions(max_new_tokens=8)
    alone = generate(
        loaded, [Prompt(tuple(loaded.chat.encode_prompt(row)), 8) for row in rows], 10_000, Ranks()
    )
    pieces = [response.split() for response in alone]
    texts = [" ".join(own[: 3 * shift or None] + shift * other) for own, other in pairwise([*pieces, pieces[0]])]
    asked = [
        replace(row, response=text, value="", prefix="", candidates=()) for row, text in zip(rows, texts, strict=True)
    ]
    seen: list[Prompt] = []

    def watched(loaded: LoadedModel, prompts: list[Prompt], batch_tokens: int, ranks: Ranks) -> list[str]:
        seen.extend(prompts)
        return generate(loaded, prompts, batch_tokens, ranks)

    monkeypatch.setattr(evaluation, "generate", watched)
    found = evaluate(loaded, [Suite("forget", Role.FORGET, tuple(asked))], options, Ranks())
    assert [row.response for row in found] == alone
    assert sum(prompt.begun for prompt in seen) >= 3 * len(rows) - 4
