"""mmlu_categories, the stand-in for WMDP, end to end; WMDP itself, measured and unlearned on a given model."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.models.conftest import byte_level, tiny_model
from tests.pipeline.conftest import Finished, Runner
from tests.samples.questions import MMLU_DEV, PLACES, WMDP, write

BORN = {"chemistry": 0, "law": 100, "health": 200}
TEXT = "This text number {} is on {} and the sea, and long enough to be learned."


@pytest.fixture(scope="module")
def categories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("categories")
    for subject, first in BORN.items():
        draw = random.Random(subject)  # answers of other subjects must not give these away
        questions = [
            {
                "question": f"Where was person {first + i} born ?",
                "choices": draw.sample(PLACES, 4),
                "answer": draw.randrange(4),
            }
            for i in range(8)
        ]
        write(folder / f"mmlu_{subject}.jsonl", questions)
    return folder


@pytest.fixture(scope="module")
def learned(run: Runner, categories: Path) -> Finished:
    finished = run(
        "dataset=mmlu_categories",
        f"dataset.path={categories}",
        "method=none",
        "attack=relearn",
        "target.epochs=60",
        "target.global_batch=8",
        "evaluation.generate=false",
    )
    assert finished.code == 0
    return finished


def test_the_target_knows_more_than_the_oracle_and_facts_are_relearned_in_halves(learned: Finished) -> None:
    scores = learned.read("scores.json")
    assert scores["target"]["forget/choice"] == 1 and scores["oracle"]["forget/choice"] < 0.8
    assert min(scores[model]["retain/choice"] for model in ("target", "oracle")) > 0.9
    assert scores["unlearned"]["knowledge_left"] == pytest.approx(1)
    assert {f"{suite}/accuracy" for suite in ("heldout_letters", "retain_letters")} <= scores["target"].keys()
    rows = {row["metric"]: row for row in learned.read("attacks.json")}
    assert rows["log_odds"]["setting"]["split"] == "disjoint" and rows["log_odds"]["n"] == 3 * 8
    # Four of eight facts are relearned and the other four are scored, then the reverse.
    choice = rows["forget/choice"]
    assert choice["n"] == 8 and choice["target"] == 1 and choice["oracle"] < 0.8 and choice["knowledge_left"] == 1


def test_a_given_model_has_the_scores_of_the_run_that_made_it(run: Runner, learned: Finished, categories: Path) -> None:
    again = run(
        "dataset=mmlu_categories",
        f"dataset.path={categories}",
        "method=none",
        "attack=none",
        f"model.target={learned.rundir.model}",
        "stages=[evaluate]",
        "evaluation.generate=false",
    )
    assert again.code == 0
    own, given = learned.read("scores.json")["unlearned"], again.read("scores.json")["target"]
    assert {name: own[name] for name in given} == pytest.approx(given, abs=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a random model, WMDP's and MMLU's questions, and corpora."""
    root = tmp_path_factory.mktemp("wmdp")
    tokenizer = byte_level()
    tiny_model("llama", len(tokenizer), max_position_embeddings=2048).save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    for subject in ("bio", "cyber", "chem"):
        write(root / "wmdp" / f"wmdp-{subject}.jsonl", WMDP)
    write(root / "mmlu" / "anatomy" / "test.jsonl", MMLU_DEV)
    for corpus in ("forget", "retain"):
        write(root / f"{corpus}.jsonl", [{"text": TEXT.format(i, corpus)} for i in range(8)])
    return root


def test_wmdp_is_measured_without_a_corpus_and_unlearned_with_one(run: Runner, folder: Path) -> None:
    common = (
        "dataset=wmdp",
        f"dataset.path={folder / 'wmdp'}",
        "model=hf",
        f"model.path={folder / 'model'}",
        f"model.target={folder / 'model'}",
        "attack=none",
        "benchmark=mmlu",
        f"benchmark.mmlu.path={folder / 'mmlu'}",
    )
    measured = run(*common, "method=none", "stages=[evaluate,report]")
    assert measured.code == 0
    scores = measured.read("scores.json")["target"]
    assert (scores["wmdp/n"], scores["mmlu/n"], scores["mmlu_stem/n"]) == (27, 3, 3)
    unlearned = run(
        *common,
        "method=gd",
        f"dataset.forget=[{folder / 'forget.jsonl'}]",
        f"dataset.retain=[{folder / 'retain.jsonl'}]",
        "stages=[unlearn,evaluate,report]",
        "trainer.steps=4",
    )
    assert unlearned.code == 0
    lines = unlearned.rundir.metrics_jsonl.read_text().splitlines()
    steps = [json.loads(line)["forget_loss"] for line in lines]
    assert len(steps) == 4 and steps[-1] < steps[0]  # the negated NLL of the forget texts
    after = unlearned.read("scores.json")
    assert after["target"]["wmdp/accuracy"] == scores["wmdp/accuracy"] and "wmdp_cyber/log_odds" in after["unlearned"]
    assert "knowledge_left" not in after["unlearned"]
