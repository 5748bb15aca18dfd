"""Greedy responses against an argmax loop over one prompt at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from erulab.evaluation.generation import generate
from erulab.models.loaded import LoadedModel
from erulab.ranks import Ranks
from tests import tiny
from tests.costs.families import CONFIGS, model_of
from tests.evaluation.conftest import on_ranks

PROMPTS = ["2 3 4", "9", "5 30 7 7 12 8 21", "11 12", "2 3 4", "36 35 34 33 32 31"]
NEW = 12


@dataclass
class Numbers:
    """A chat format whose texts are token ids, written out."""

    stop_ids: tuple[int, ...]
    pad_id: int = 1

    def encode_prompt(self, prompt: str) -> list[int]:
        return [int(word) for word in prompt.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


def naive(model: Any, prompt: str, stop_ids: tuple[int, ...]) -> str:
    ids = [int(word) for word in prompt.split()]
    response: list[int] = []
    for _ in range(NEW):
        token = int(model(input_ids=torch.tensor([ids + response])).logits[0, -1].argmax())
        if token in stop_ids:
            break
        response.append(token)
    return " ".join(map(str, response))


@pytest.mark.parametrize("kind", tiny.KINDS)  # gpt2 has learned positions: padding must not shift them
def test_responses_are_those_of_an_argmax_loop(kind: str) -> None:
    model = tiny.random_model(kind)
    free = [naive(model, prompt, ()).split() for prompt in PROMPTS]
    # Stop tokens that end one response at its start and one inside.
    stops = (int(free[1][0]), int(free[2][4]))
    expected = [naive(model, prompt, stops) for prompt in PROMPTS]
    assert expected[1] == "" and len(expected[2].split()) < NEW
    loaded = LoadedModel(model, None, Numbers(stops))  # type: ignore[arg-type]
    for batch_tokens in (1, 60, 10_000):
        assert generate(loaded, PROMPTS, NEW, batch_tokens, Ranks()) == expected
    for responses in on_ranks(2, lambda ranks: generate(loaded, PROMPTS, NEW, 60, ranks)):
        assert responses == expected


def test_equal_prompts_are_answered_once_and_a_finished_batch_stops() -> None:
    model = tiny.random_model()
    rows: list[int] = []
    model.register_forward_pre_hook(lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True)
    every = tuple(range(tiny.VOCABULARY))
    responses = generate(LoadedModel(model, None, Numbers(every)), ["2 3"] * 5 + ["4"], NEW, 1000, Ranks())  # type: ignore[arg-type]
    assert responses == [""] * 6
    assert rows == [2]


@pytest.mark.parametrize("stop_ids", [(), (5,)])  # also where the longest response ends early
def test_generation_is_counted_as_torch_counts_it(stop_ids: tuple[int, ...]) -> None:
    model = model_of(CONFIGS["llama"], "eager").eval()
    loaded = LoadedModel(model, None, Numbers(stop_ids))  # type: ignore[arg-type]
    with FlopCounterMode(display=False) as counter:
        generate(loaded, PROMPTS, NEW, 60, Ranks())
    found = loaded.ledger.take()
    assert found.flops == found.flops_forward == counter.get_total_flops()
