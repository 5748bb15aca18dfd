"""A prompt whose continuation a model generates. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Draw:
    """Samples a response token by token, with a random generator of its own.

    Other rows and samples of the batch therefore do not change the response.

    seed: seed of the generator.
    temperature: > 0; the logits are divided by it.
    excluded: a token that is not drawn as the first one; -1: none.
    """

    seed: int
    temperature: float = 1.0
    excluded: int = -1


@dataclass(frozen=True)
class Prompt:
    """Token ids that a model continues.

    max_new_tokens: the response is cut after this many tokens.
    stops: the response ends before the first of these texts.
    draw: how tokens are sampled; None takes the most probable token each time (greedy).
    begun: how many of the last ids begin the response, which is returned with them.
    """

    ids: tuple[int, ...]
    max_new_tokens: int
    stops: tuple[str, ...] = ()
    draw: Draw | None = None
    begun: int = 0
