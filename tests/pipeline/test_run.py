"""One run end to end: its files, and that its numbers are those of the model it left."""

from __future__ import annotations

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from tests.pipeline.conftest import Finished, Runner

FILES = (
    "run.yaml", "metrics.jsonl", "scores.json", "attacks.json", "samples.json", "stages.json", "report.md",
    "report.html", "exit.json", "run.log", "model/model.safetensors", "model/config.json", "model/tokenizer.json",
)  # fmt: skip
ROW = {
    "attack", "setting", "metric", "target", "unlearned", "oracle", "attacked_target", "attacked_unlearned",
    "attacked_oracle", "residual", "residual_attacked", "recovered", "maintained_gap", "maintained_error", "valid",
    "low", "high", "note",
}  # fmt: skip


def test_all_files_are_there(first: Finished) -> None:
    missing = [name for name in FILES if not (first.rundir.path / name).is_file()]
    assert missing == []
    assert first.read("exit.json")["code"] == 0
    assert "erulab.pipeline INFO unlearn: " in first.rundir.run_log.read_text()


def test_metrics_have_a_line_a_step(first: Finished) -> None:
    lines = [json.loads(line) for line in first.rundir.metrics_jsonl.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    names = {"loss", "forget_loss", "retain_loss", "lr", "grad_norm", "rows_per_second", "method/depth", "method/nll"}
    assert all(names <= line.keys() for line in lines)
    assert "adversary/gain" in lines[0]
    assert lines[0]["method/depth"] == pytest.approx(0, abs=1e-5)  # at the start policy and reference are one


def test_scores_are_those_of_the_saved_model(first: Finished) -> None:
    """The saved model, loaded by plain transformers, gives the scores in a loop over rows."""
    model = AutoModelForCausalLM.from_pretrained(first.rundir.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(first.rundir.model)
    world = FictitiousWorld(
        FictitiousOptions(forget_authors=4, retain_authors=3, unrehearsed_authors=1, unseen_authors=1, general_facts=2)
    ).load(0)
    nlls = []
    for row in world.suite("forget").rows:
        user = {"role": "user", "content": row.prompt}
        whole = tokenizer.apply_chat_template(
            [user, {"role": "assistant", "content": row.response}], return_dict=False
        )
        prompt = tokenizer.apply_chat_template([user], add_generation_prompt=True, return_dict=False)
        logp = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        tokens = [-logp[t - 1, whole[t]].item() for t in range(len(prompt), len(whole))]
        nlls.append(sum(tokens) / len(tokens))
    unlearned = first.read("scores.json")["unlearned"]
    assert unlearned["forget/nll"] == pytest.approx(sum(nlls) / len(nlls), abs=1e-4)
    probabilities = [math.exp(-nll) for nll in nlls]
    assert unlearned["forget/probability"] == pytest.approx(sum(probabilities) / len(nlls), abs=1e-4)
    assert unlearned["forget/n"] == len(nlls) == 40


def test_scores_of_all_three_models(first: Finished) -> None:
    scores = first.read("scores.json")
    assert scores.keys() == {"target", "unlearned", "oracle"}
    for name in ("forget/choice", "forget_heldout/choice", "retain/exact_match", "unseen/choice", "model_utility"):
        assert all(0 <= scores[model][name] <= 1 for model in scores), name
    assert scores["oracle"]["forget_quality"] == 1.0
    assert scores["target"]["knowledge"] > scores["oracle"]["knowledge"]
    unlearned = scores["unlearned"]
    gap = scores["target"]["knowledge"] - scores["oracle"]["knowledge"]
    assert unlearned["residual"] == pytest.approx((unlearned["knowledge"] - scores["oracle"]["knowledge"]) / gap)
    assert unlearned["residual_low"] <= unlearned["residual"] <= unlearned["residual_high"]


def test_attack_rows_have_the_public_fields(first: Finished) -> None:
    rows = first.read("attacks.json")
    assert {row["attack"] for row in rows} == {"relearn", "quantize"}
    assert all(row.keys() >= ROW for row in rows)
    assert all(isinstance(row["setting"], dict) for row in rows)
    assert any(row["metric"] == "log_odds" for row in rows)


def test_none_is_the_target_and_retrain_the_oracle(run: Runner, first: Finished) -> None:
    wanted = first.read("scores.json")
    for method, model, residual in (("none", "target", 1.0), ("retrain", "oracle", 0.0)):
        finished = run(f"method={method}", "attack=none")
        scores = finished.read("scores.json")
        assert finished.code == 0
        assert scores["unlearned"]["residual"] == pytest.approx(residual)
        assert scores["unlearned"]["forget/nll"] == wanted[model]["forget/nll"]
        assert finished.from_cache["target"] and finished.from_cache["oracle"]


def test_evaluates_a_checkpoint_it_did_not_train(run: Runner, first: Finished) -> None:
    finished = run(f"model.unlearned={first.rundir.model}", "stages=[evaluate]", "attack=none")
    assert finished.code == 0
    unlearned = first.read("scores.json")["unlearned"]
    assert finished.read("scores.json")["unlearned"]["forget/nll"] == pytest.approx(unlearned["forget/nll"], abs=1e-6)
