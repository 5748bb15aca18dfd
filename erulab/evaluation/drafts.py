"""Openings of greedy responses that teacher forcing has already shown, so that generation need not repeat them.

A teacher-forced pass tells for each token of a response whether it is the most probable one after those before it. As
far as all of them are, the greedy response to the same prompt begins with them: generation goes on from there. A model
that knows an answer by heart generates nothing, its response is known from the pass that scored it. As everywhere,
responses may differ by rounding where two tokens are equally probable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from erulab.evaluation.measures import RequestKey, RowRequests, request_key
from erulab.evaluation.prompt import Prompt
from erulab.evaluation.scoring import Score


def begun_prompt(own: RowRequests, scores: Mapping[RequestKey, Score], stop_ids: Collection[int]) -> Prompt | None:
    """Returns a row's prompt, continued by the longest opening of its greedy response that its requests show.

    Args:
        own: what the row requests; its prompt is greedy.
        scores: of all requests.
        stop_ids: tokens that end a response.
    Returns:
        None if the row has no prompt.
    """
    prompt = own.prompt
    if prompt is None or prompt.draw is not None:
        return prompt
    shown: Sequence[int] = ()
    for request in own.requests:
        first = len(prompt.ids)
        if request.start == first > 0 and request.supervised is None and request.ids[:first] == prompt.ids:
            tokens = scores[request_key(request)].tokens
            greedy = next((i for i, token in enumerate(tokens) if not token.greedy), len(tokens))
            shown = max(shown, request.ids[first : first + greedy], key=len)
    # Nothing follows a token that ends the response.
    end = next((i + 1 for i, token in enumerate(shown) if token in stop_ids), len(shown))
    shown = tuple(shown[: min(end, prompt.max_new_tokens)])
    return replace(
        prompt,
        ids=prompt.ids + shown,
        max_new_tokens=prompt.max_new_tokens - len(shown),
        begun=prompt.begun + len(shown),
    )
