"""Greedy responses against an argmax loop over one prompt at a time; drawn ones against the model's probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, MistralConfig

from erulab.evaluation.generation import SHARED, drawn_tokens, generate
from erulab.evaluation.prompt import Draw, Prompt
from erulab.models import key_value
from erulab.models.attention import packed_attention
from erulab.models.loaded import LoadedModel
from erulab.ranks import Ranks
from tests.costs.families import CONFIGS, model_of
from tests.evaluation.conftest import on_ranks
from tests.samples import tiny

PROMPTS = ["2 3 4", "9", "5 30 7 7 12 8 21", "11 12", "2 3 4", "36 35 34 33 32 31"]
NEW = 12


@dataclass
class Numbers:
    """A chat format whose texts are token ids, written as numbers."""

    stop_ids: tuple[int, ...]
    pad_id: int = 1

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def limit(self, max_length: int | None) -> int:
        return 64  # the positions that the small models have


def prompts(texts: Sequence[str], new: int = NEW, stops: tuple[str, ...] = ()) -> list[Prompt]:
    return [Prompt(tuple(int(word) for word in text.split()), new, stops) for text in texts]


def naive(model: Any, prompt: str, stop_ids: tuple[int, ...], new: int = NEW) -> str:
    ids = [int(word) for word in prompt.split()]
    response: list[int] = []
    for _ in range(new):
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
        assert generate(loaded, prompts(PROMPTS), batch_tokens, Ranks()) == expected
    for responses in on_ranks(2, lambda ranks: generate(loaded, prompts(PROMPTS), 60, ranks)):
        assert responses == expected


def test_a_response_ends_at_the_context_s_end_in_every_batch() -> None:
    model = tiny.random_model("gpt2")
    long = " ".join(str(2 + i % 30) for i in range(61))
    loaded = LoadedModel(model, None, Numbers(()))  # type: ignore[arg-type]
    wanted = [naive(model, long, (), new=3), naive(model, "9", ())]
    assert generate(loaded, prompts([long, "9"]), 10_000, Ranks()) == wanted


def test_equal_prompts_are_answered_once_and_a_finished_batch_stops() -> None:
    model = tiny.random_model()
    rows: list[int] = []
    model.register_forward_pre_hook(lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True)
    every = tuple(range(tiny.VOCABULARY))
    loaded = LoadedModel(model, None, Numbers(every))  # type: ignore[arg-type]
    responses = generate(loaded, prompts(["2 3"] * 5 + ["4"]), 1000, Ranks())
    assert responses == [""] * 6
    assert rows == [2]


@pytest.mark.parametrize("stop_ids", [(), (5,)])  # also where the longest response ends early
def test_generation_is_counted_as_torch_counts_it(stop_ids: tuple[int, ...]) -> None:
    model = model_of(CONFIGS["llama"], "eager").eval()
    loaded = LoadedModel(model, None, Numbers(stop_ids))  # type: ignore[arg-type]
    with FlopCounterMode(display=False) as counter:
        generate(loaded, prompts(PROMPTS), 60, Ranks())
    found = loaded.ledger.take()
    assert found.flops == found.flops_forward == counter.get_total_flops()


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_common_opening_is_computed_once(kind: str) -> None:
    model = tiny.random_model(kind)
    opening = " ".join(str(2 + i % 30) for i in range(SHARED))
    texts = [f"{opening} {prompt}" for prompt in PROMPTS]
    expected = [naive(model, text, (5,)) for text in texts]
    seen: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    assert generate(LoadedModel(model, None, Numbers((5,))), prompts(texts), 10_000, Ranks()) == expected  # type: ignore[arg-type]
    # Five different prompts, of which the longest has seven tokens behind the opening.
    assert seen[:2] == [(1, SHARED), (5, 7)]


def test_rows_leave_the_batch_as_they_end() -> None:
    model = tiny.random_model()
    stop = int(naive(model, PROMPTS[0], ()).split()[3])
    expected = [naive(model, prompt, (stop,)) for prompt in PROMPTS] + [naive(model, PROMPTS[3], (stop,), 2)]
    rows: list[int] = []
    model.register_forward_pre_hook(lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True)
    asked = [*prompts(PROMPTS), *prompts(PROMPTS[3:4], 2)]
    assert generate(LoadedModel(model, None, Numbers((stop,))), asked, 10_000, Ranks()) == expected  # type: ignore[arg-type]
    # One prompt is asked for two tokens and for twelve: five others, of which one at least has left at the end.
    assert rows[0] == 6 and rows[2] < 6 and rows[-1] < 5


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_response_that_has_begun_goes_on_as_if_generated(kind: str) -> None:
    """Any opening of each response is given, up to all of it; complete responses run nothing."""
    model = tiny.random_model(kind)
    stop = int(naive(model, PROMPTS[0], ()).split()[5])
    loaded = LoadedModel(model, None, Numbers((stop,)))  # type: ignore[arg-type]
    expected = [naive(model, prompt, (stop,)) for prompt in PROMPTS]
    asked, whole = [], []
    for i, (prompt, response) in enumerate(zip(prompts(PROMPTS), expected, strict=True)):
        ids = [*map(int, response.split())]
        ids += [stop] if len(ids) < NEW else []
        for kept, chosen in ((i % (len(ids) + 1), asked), (len(ids), whole)):
            opening = tuple(ids[:kept])
            chosen.append(Prompt(prompt.ids + opening, NEW - kept, begun=kept))
    for batch_tokens in (60, 10_000):
        assert generate(loaded, asked, batch_tokens, Ranks()) == expected
    loaded.ledger.take()
    assert generate(loaded, whole, 60, Ranks()) == expected
    assert loaded.ledger.take().tokens == 0


def test_a_response_ends_before_a_stop_text() -> None:
    model = tiny.random_model()
    free = [naive(model, prompt, ()) for prompt in PROMPTS]
    stop = f" {free[2].split()[4]}"
    lengths: list[int] = []
    model.register_forward_pre_hook(lambda _, args, kwargs: lengths.append(1), with_kwargs=True)
    found = generate(LoadedModel(model, None, Numbers(())), prompts(PROMPTS[2:3], stops=(stop,)), 10_000, Ranks())  # type: ignore[arg-type]
    assert found == [free[2].partition(stop)[0]]
    assert len(lengths) <= 5


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_cache_that_grows_in_place_is_one_that_is_copied(kind: str) -> None:
    """Through a common opening and rows that leave."""
    model = tiny.random_model(kind)
    assert key_value.cache_for(model.config, 64) is not None or kind == "qwen2"
    stop = int(naive(model, PROMPTS[0], ()).split()[5])
    opening = " ".join(str(2 + i % 30) for i in range(SHARED))
    texts = [*PROMPTS, *[f"{opening} {prompt}" for prompt in PROMPTS]]
    loaded = LoadedModel(model, None, Numbers((stop,)))  # type: ignore[arg-type]
    for batch_tokens in (60, 10_000):
        found = generate(loaded, prompts(texts), batch_tokens, Ranks())
        assert found == [naive(model, text, (stop,)) for text in texts]


def test_models_with_windows_keep_transformers_own_cache() -> None:
    assert key_value.cache_for(MistralConfig(sliding_window=8), 9) is None
    assert key_value.cache_for(LlamaConfig(), 9) is not None


def test_attention_of_one_token_is_sdpa_s() -> None:
    """Heads that share keys, with a mask that has holes, bool or added, and without."""
    query, key, value = torch.randn(3, 6, 1, 8), torch.randn(3, 2, 9, 8), torch.randn(3, 2, 9, 8)
    seen = torch.rand(3, 1, 1, 9) > 0.3
    seen[..., -1] = True
    added = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    for mask in (seen, added, None):
        expected = F.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True).transpose(1, 2)
        with torch.no_grad():
            found, _ = packed_attention(torch.nn.Identity(), query, key, value, mask)
        torch.testing.assert_close(found, expected)


def drawn(texts: Sequence[str], samples: int, temperature: float = 1.0, new: int = NEW) -> list[Prompt]:
    return [
        replace(prompt, draw=Draw(1000 * i + j, temperature))
        for i, prompt in enumerate(prompts(texts, new))
        for j in range(samples)
    ]


def test_samples_have_the_model_s_frequencies() -> None:
    """The first two tokens of 4,000 samples against their joint probabilities: Pearson's statistic, far below the
    bound that it exceeds once in 10,000 times."""
    model, count = tiny.random_model(), 4000
    asked = [int(word) for word in PROMPTS[0].split()]
    with torch.no_grad():
        first = (model(input_ids=torch.tensor([asked])).logits[0, -1] / 0.5).softmax(-1)
        pairs = torch.tensor([[*asked, token] for token in range(tiny.VOCABULARY)])
        joint = first[:, None] * (model(input_ids=pairs).logits[:, -1] / 0.5).softmax(-1)
    found = generate(
        LoadedModel(model, None, Numbers(())),
        drawn(PROMPTS[:1], count, 0.5, 2),
        20_000,
        Ranks(),  # type: ignore[arg-type]
    )
    seen = Counter(tuple(map(int, text.split())) for text in found)
    often = [(int(i), int(j)) for i, j in (joint * count > 5).nonzero()]
    expected = [float(joint[pair]) * count for pair in often]
    observed = [seen[pair] for pair in often]
    expected.append(count - sum(expected))
    observed.append(count - sum(observed))
    statistic = sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))
    freedom = len(expected) - 1
    assert freedom > 30 and statistic < freedom + 4 * (2 * freedom) ** 0.5


def test_a_sample_does_not_depend_on_the_rest_of_the_batch() -> None:
    model = tiny.random_model()
    loaded = LoadedModel(model, None, Numbers((5,)))  # type: ignore[arg-type]
    asked = drawn(PROMPTS, 3)
    together = generate(loaded, [*asked, *prompts(PROMPTS)], 10_000, Ranks())
    alone = [generate(loaded, [prompt], 10_000, Ranks())[0] for prompt in asked]
    assert together[: len(asked)] == alone and len(set(alone)) > len(PROMPTS)
    assert together[len(asked) :] == [naive(model, text, (5,)) for text in PROMPTS]
    assert generate(loaded, asked[::-1], 60, Ranks()) == alone[::-1]
    shorter = [replace(prompt, max_new_tokens=3) for prompt in asked]
    found = generate(loaded, [*shorter, *asked], 10_000, Ranks())
    assert found[len(asked) :] == alone
    assert found[: len(asked)] == [" ".join(response.split()[:3]) for response in alone]


def test_cold_samples_are_greedy() -> None:
    model = tiny.random_model()
    loaded = LoadedModel(model, None, Numbers(()))  # type: ignore[arg-type]
    assert generate(loaded, drawn(PROMPTS, 1, 1e-6), 60, Ranks()) == [naive(model, text, ()) for text in PROMPTS]


def test_a_random_number_selects_the_token_of_its_interval() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.0, 0.25]], dtype=torch.float64).log()
    numbers = {0.0: 0, 0.49: 0, 0.5: 1, 0.74: 1, 0.75: 3, 1 - 1e-16: 3}
    for number, token in numbers.items():
        assert drawn_tokens(logits, torch.tensor([number], dtype=torch.float64)).tolist() == [token]
