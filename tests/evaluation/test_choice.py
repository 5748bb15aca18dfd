"""Multiple choice by whole continuations, against a loop over full logits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from erulab.data.arc import Arc, ArcOptions, Subset
from erulab.data.measures import Choice
from erulab.data.rows import Role, Row, Suite
from erulab.evaluation.evaluate import evaluate
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks
from erulab.tokens.chat import ChatFormat
from tests.data.test_wmdp import logp
from tests.models.conftest import byte_level, tiny_model
from tests.samples.questions import WMDP, write


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    tokenizer = byte_level()
    model = tiny_model("llama", len(tokenizer), max_position_embeddings=2048)
    return LoadedModel(model, tokenizer, ChatFormat(tokenizer, 2048))


def test_accuracy_by_sums_and_by_characters(loaded: LoadedModel, tmp_path: Path) -> None:
    queries = [{"query": f"Question: {q['question']}", "choices": q["choices"], "gold": q["answer"]} for q in WMDP]
    write(tmp_path / "arc_easy.jsonl", queries)
    suites = Arc(ArcOptions(path=str(tmp_path), subsets=[Subset.easy])).load(0, tmp_path).suites
    differ = 0
    for query, scored in zip(queries, evaluate(loaded, suites, EvaluationOptions(), Ranks()), strict=True):
        choices, gold = query["choices"], query["gold"]
        sums = [logp(loaded, f"{query['query']}\nAnswer:", f" {choice}") for choice in choices]
        rates = [value / len(choice) for value, choice in zip(sums, choices, strict=True)]
        wrong = [value for i, value in enumerate(sums) if i != gold]
        assert scored.figures == pytest.approx(
            {
                "accuracy": float(max(sums) == sums[gold]),
                "accuracy_norm": float(max(rates) == rates[gold]),
                "log_odds": sums[gold] - max(wrong) - math.log(sum(math.exp(value - max(wrong)) for value in wrong)),
            },
            abs=1e-4,
        )
        differ += sums.index(max(sums)) != rates.index(max(rates))
    assert differ  # else the test could not tell one from the other


def test_a_tie_is_a_miss(loaded: LoadedModel) -> None:
    options = (" Brenwick", " Almora, by the sea")
    row = Row("tie", "Where was Ada born?\nAnswer:", " Brenwick", options=options, plain=True)
    suite = Suite("s", Role.RETAIN, [row], Choice(normalized=True))
    (scored,) = evaluate(loaded, [suite], EvaluationOptions(), Ranks())
    assert (scored.figures["accuracy"], scored.figures["accuracy_norm"]) == (0.0, 0.0)
