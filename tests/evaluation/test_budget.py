"""The budget of tokens against its closed form by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from erulab.costs.shapes import ModelShape
from erulab.evaluation import budget
from erulab.evaluation.budget import Budget, choose_budget, cpu_budget, gpu_budget
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks
from tests.evaluation.conftest import on_ranks
from tests.samples import tiny

GIB = 2**30
SMOLLM2 = ModelShape.from_config(
    {
        "model_type": "llama",
        "num_hidden_layers": 30,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    }
)
CACHE, ACTIVATIONS = 30 * 2 * 192 * 4, (2 * 576 + 3 * 1536) * 4


def test_a_cpu_with_enough_memory_has_one_budget() -> None:
    """The same bits every time: what other programs hold does not matter from 3 GiB of free memory on."""
    found = {cpu_budget(SMOLLM2, 4, free) for free in (3 * GIB + 3, 5 * GIB, 200 * GIB)}
    assert found == {Budget(3 * 2**24 // ACTIVATIONS, GIB // CACHE, 128)}


def test_little_memory_is_a_power_of_two() -> None:
    found = {cpu_budget(SMOLLM2, 4, free).generation for free in (GIB, int(1.4 * GIB))}
    assert found == {2**28 // CACHE}
    assert cpu_budget(SMOLLM2, 4, 0) == Budget(256, 256, 128)


def test_a_gpu_takes_a_third_of_its_free_memory() -> None:
    logits = 1024 * 49152 * (2 + 4 + 4)
    free = int(1.6 * GIB)
    found = gpu_budget(SMOLLM2, 2, free)
    assert found.scoring == (free // 3 - logits) // (ACTIVATIONS // 2)
    assert found.generation == free // 3 // (CACHE // 2)
    assert gpu_budget(SMOLLM2, 2, 200 * GIB) == Budget(2**14, 2**17, 1024)


def test_one_prompt_after_another_never_exceeds_two_thirds() -> None:
    """Where activations outweigh the cache, prompts without a response count half of both."""
    narrow = replace(SMOLLM2, kv_heads=1, mlp_width=16 * 576)
    cache, activations = 30 * 2 * 64 * 4, (2 * 576 + 3 * 16 * 576) * 4
    tokens = gpu_budget(narrow, 4, 3 * GIB).generation
    assert GIB < tokens * (cache + activations) <= 2 * GIB


def test_a_fixed_number_is_taken_and_all_ranks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = SimpleNamespace(model=tiny.random_model())
    fixed = choose_budget(loaded, EvaluationOptions(batch_tokens=77), Ranks())  # type: ignore[arg-type]
    assert (fixed.scoring, fixed.generation) == (77, 77)
    free = iter([4 * GIB, 2**20])
    monkeypatch.setattr(budget, "free_memory", lambda: next(free))
    one, other = on_ranks(2, lambda ranks: choose_budget(loaded, EvaluationOptions(), ranks))  # type: ignore[arg-type]
    assert (
        one == other
        and one.generation < cpu_budget(ModelShape.from_config(loaded.model.config.to_dict()), 4, 4 * GIB).generation
    )


def test_free_memory_is_of_this_machine() -> None:
    assert 0 < budget.free_memory() <= budget.psutil.virtual_memory().total
