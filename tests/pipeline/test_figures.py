"""Figures of a whole run: intervals, comparisons with target and oracle, responses as the target reads them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.pipeline.conftest import Finished, Runner

ATTACKED = ("attack=[relearn,quantize]",)
# Figures that are no mean of rows, or have their bounds beside them in scores.json.
WITHOUT = ("cost/", "knowledge_left", "utility_kept", "forget_quality")


@pytest.fixture(scope="module")
def told(first: Finished, run: Runner) -> Finished:
    """The run with all its responses in samples.json; its scores come from the cache."""
    return run(*ATTACKED, "evaluation.samples=1000")


def test_every_figure_has_an_interval_that_holds_it(first: Finished) -> None:
    scores, intervals = first.read("scores.json"), first.read("intervals.json")
    assert scores.keys() == intervals.keys()
    for model, figures in scores.items():
        means = {name for name in figures if not name.startswith(WITHOUT) and not name.endswith("/n")}
        missing = means - intervals[model].keys()
        # Rows that all have one value have none: in the tiny world some suites hold one author.
        assert len(missing) < 0.1 * len(means), missing
        for name, (low, high) in intervals[model].items():
            assert low <= figures[name] <= high, name


def test_comparisons_end_at_target_and_oracle(first: Finished) -> None:
    figures = first.read("scores.json")
    unlearned = figures["unlearned"]
    assert unlearned["worst_of_phrasings/n"] == 4 * 5
    assert unlearned["worst_of_phrasings/choice"] >= max(unlearned["forget/choice"], unlearned["forget_heldout/choice"])
    for name in ("rank", "worst"):
        if f"knowledge_left_{name}" in unlearned:
            low, high = (unlearned[f"knowledge_left_{name}_{end}"] for end in ("low", "high"))
            assert low <= unlearned[f"knowledge_left_{name}"] <= high
    for model in figures.values():
        assert 0 <= model["aggregate/memorisation"] <= 1 and 0 <= model["forget/rank_auc"] <= 1
        assert model["forget/rank"] == pytest.approx(1 + 14 * (1 - model["forget/rank_auc"]))


def test_the_target_reads_the_responses_of_every_model(first: Finished, told: Finished) -> None:
    """Against full logits of the target, response by response, over the suite `general`."""
    folder = first.rundir.path.parents[1] / ".cache/learned" / first.read("stages.json")["target"]["key"]
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    samples = [sample for sample in told.read("samples.json") if sample["suite"] == "general"]
    scores: dict[str, Any] = told.read("scores.json")
    for role in ("target", "unlearned", "oracle"):
        found = [nll for sample in samples if (nll := response_nll(model, tokenizer, sample, role)) is not None]
        assert scores[role]["general/response_nll"] == pytest.approx(sum(found) / len(found), abs=1e-4)
    assert told.from_cache["evaluate"]


def response_nll(model: Any, tokenizer: Any, sample: dict[str, str], role: str) -> float | None:
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    prompt, response = ([word for word, _ in split(sample[text])] for text in ("prompt", role))
    if not response:
        return None
    words = ["<bos>", *prompt, "\n", *response]
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(words)])
    with torch.no_grad():
        logp = model(input_ids=ids).logits[0].double().log_softmax(-1)
    start = len(words) - len(response)
    return -sum(float(logp[i - 1, ids[0, i]]) for i in range(start, len(words))) / len(response)
