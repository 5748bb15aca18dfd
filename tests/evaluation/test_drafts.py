"""Responses that go on from what teacher forcing showed are those that a model generates from the prompt alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from erulab.data.rows import Benchmark
from erulab.evaluation.drafts import begun_prompt
from erulab.evaluation.evaluate import evaluate
from erulab.evaluation.generation import generate
from erulab.evaluation.measures import RowRequests, request_key
from erulab.evaluation.prompt import Draw, Prompt
from erulab.evaluation.scoring import Score, Token, score
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded
from tests.evaluation.test_generation import PROMPTS, Numbers, naive, prompts
from tests.samples import tiny

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


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_responses_are_those_of_an_argmax_loop(kind: str, batch_tokens: int) -> None:
    """The scored answers begin as the model's own responses do, from no token on to all of them with their end."""
    model = tiny.random_model(kind)
    stop = int(naive(model, PROMPTS[0], ()).split()[5])
    loaded = LoadedModel(model, None, Numbers((stop,)))  # type: ignore[arg-type]
    expected = [naive(model, prompt, (stop,)) for prompt in PROMPTS]
    rows = []
    for i, (prompt, response) in enumerate(zip(prompts(PROMPTS), expected, strict=True)):
        ids = (*map(int, response.split()), stop)
        answer = ids if i == 0 else (*ids[:i], (ids[i % len(ids)] + 1) % tiny.VOCABULARY, 7)
        request = Encoded("", (*prompt.ids, *answer), len(prompt.ids), len(prompt.ids) + len(answer))
        rows.append(RowRequests((request,), prompt, lambda results: {}))
    requests = [row.requests[0] for row in rows]
    scores = score(loaded.policy, requests, 1, batch_tokens, Ranks())
    known = dict(zip(map(request_key, requests), scores, strict=True))
    asked = [begun_prompt(row, known, (stop,)) for row in rows]
    assert [prompt.begun for prompt in asked if prompt] == [
        len(expected[0].split()) + 1,
        *(min(i, len(expected[i].split()) + 1) for i in range(1, len(PROMPTS))),
    ]
    found = generate(loaded, [prompt for prompt in asked if prompt], batch_tokens, Ranks())
    assert found == expected


def test_an_evaluation_gives_the_responses_of_generation_alone(world: Benchmark, loaded: LoadedModel) -> None:
    suite = world.suite("forget")
    asked = [Prompt(tuple(loaded.chat.encode_prompt(row)), 6) for row in suite.rows]
    alone = generate(loaded, asked, 10_000, Ranks())
    assert [row.response for row in evaluate(loaded, [suite], EvaluationOptions(max_new_tokens=6), Ranks())] == alone
