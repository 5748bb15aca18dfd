"""One run end to end: its files, and that its scores are those of the model it saved."""

from __future__ import annotations

import dataclasses
import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, Olmo2Config, Olmo2ForCausalLM

from erulab.config.compose import compose_config
from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.models.loading import save_folder
from erulab.registry import datasets, models
from tests.pipeline.conftest import Finished, Runner, small

FILES = (
    "run.yaml",
    "metrics.jsonl",
    "scores.json",
    "intervals.json",
    "attacks.json",
    "samples.json",
    "stages.json",
    "report.md",
    "report.html",
    "exit.json",
    "run.log",
    "model/model.safetensors",
    "model/config.json",
    "model/tokenizer.json",
)
ROW = {
    "attack",
    "setting",
    "metric",
    "target",
    "unlearned",
    "oracle",
    "attacked_target",
    "attacked_unlearned",
    "attacked_oracle",
    "knowledge_left",
    "knowledge_left_attacked",
    "recovered",
    "maintained_gap",
    "maintained_error",
    "valid",
    "low",
    "high",
    "note",
}


def test_all_files_are_there(first: Finished) -> None:
    missing = [name for name in FILES if not (first.rundir.path / name).is_file()]
    assert missing == []
    assert first.read("exit.json")["code"] == 0
    assert "erulab.pipeline INFO unlearn: " in first.rundir.run_log.read_text()


def test_too_few_steps_are_told_before_any_training_and_in_the_report(first: Finished) -> None:
    """Target and oracle take 12 epochs of 80 and more rows in batches of 32; unlearning takes 4 steps."""
    (note,) = first.read("stages.json")["data"]["notes"]
    assert note.startswith("unlearning takes 4 optimizer steps (trainer.steps=4); fewer than 10")
    log = first.rundir.run_log.read_text()
    assert log.index(note) < log.index("erulab.pipeline INFO target: ")
    assert note in first.rundir.report_md.read_text()


def test_metrics_have_one_line_per_step(first: Finished) -> None:
    lines = [json.loads(line) for line in first.rundir.metrics_jsonl.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    names = {"loss", "forget_loss", "retain_loss", "lr", "grad_norm", "rows_per_second", "method/depth", "method/nll"}
    assert all(names <= line.keys() for line in lines)
    assert "adversary/gain" in lines[0]
    assert lines[0]["method/depth"] == pytest.approx(0, abs=1e-5)  # at step 0 the policy is the reference


def test_scores_are_those_of_the_saved_model(first: Finished) -> None:
    """The saved model, loaded by plain transformers, gives the same scores row by row."""
    model = AutoModelForCausalLM.from_pretrained(first.rundir.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(first.rundir.model)
    world = FictitiousWorld(
        FictitiousOptions(forget_authors=4, retain_authors=3, unrehearsed_authors=1, unseen_authors=1, general_facts=2)
    ).load(0)
    nlls = []
    for row in world.suite("forget").rows:
        user = {"role": "user", "content": row.prompt}
        whole = tokenizer.apply_chat_template([user, {"role": "assistant", "content": row.response}], return_dict=False)
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
    assert unlearned["knowledge_left"] == pytest.approx((unlearned["knowledge"] - scores["oracle"]["knowledge"]) / gap)
    assert unlearned["knowledge_left_low"] <= unlearned["knowledge_left"] <= unlearned["knowledge_left_high"]


def test_costs_are_in_every_file(first: Finished) -> None:
    """stages.json, the cache, metrics.jsonl and scores.json agree on the cost of each stage."""
    stages, scores = first.read("stages.json"), first.read("scores.json")
    for stage in ("target", "oracle", "unlearn", "evaluate", "attack"):
        entry = stages[stage]
        assert entry["tokens"] > entry["supervised_tokens"] > 0 and entry["flops_forward"] > 0, stage
        assert entry["flops"] == entry["flops_forward"] + entry["flops_backward"] + entry["flops_adversary"]
        assert entry["seconds"] > 0 and 1e8 < entry["peak_memory_bytes"] < 1e11
    trained = [name for name in stages if name != "attack" and stages[name].get("flops_backward")]
    assert trained == ["target", "oracle", "unlearn"]
    assert [name for name in stages if stages[name].get("flops_adversary")] == ["unlearn"]
    # Other tests add attacks to this run; the cost of each attack stays with its rows in the cache.
    kept = first.rundir.path.parents[1] / ".cache" / "attacked"
    entries = [json.loads(file.read_text()) for file in kept.glob("*/entry.json")]
    attackers = {entry["depends_on"]["attack"]["name"]: entry["costs"]["flops_backward"] > 0 for entry in entries}
    assert attackers == {"relearn": True, "quantize": False}
    for model, stage in (("target", "target"), ("oracle", "oracle"), ("unlearned", "unlearn")):
        for name in ("tokens", "flops", "flops_adversary", "seconds"):
            assert scores[model][f"cost/{name}"] == stages[stage][name]
        assert scores[model]["cost/peak_memory_gb"] == stages[stage]["peak_memory_bytes"] / 1e9
    lines = [json.loads(line) for line in first.rundir.metrics_jsonl.read_text().splitlines()]
    assert lines[0]["cost/flops"] < lines[1]["cost/flops"] < lines[2]["cost/flops"]
    assert lines[-1]["cost/tokens"] == stages["unlearn"]["tokens"]
    assert lines[-1]["cost/flops"] == stages["unlearn"]["flops"]
    assert lines[-1]["cost/flops_adversary"] == stages["unlearn"]["flops_adversary"]


def test_costs_of_an_unknown_model_type_are_null(run: Runner, tmp_path: Path) -> None:
    """OLMo 2 is loaded and trained like any other model, but its costs are known in tokens only, not in FLOPs."""
    config = Olmo2Config(
        vocab_size=600,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    tiny = compose_config(small(()))
    loaded = models.build(tiny.model).load(datasets.build(tiny.dataset).load(0), 0)
    assert len(loaded.tokenizer) < config.vocab_size
    save_folder(dataclasses.replace(loaded, model=Olmo2ForCausalLM(config)), tmp_path / "base")
    finished = run(
        "model=hf",
        f"model.path={tmp_path / 'base'}",
        "attack=none",
        "stages=[target,evaluate,report]",
        "evaluation.generate=false",
        "target.epochs=1",
        "evaluation.rows=2",
        folder=tmp_path,
    )
    assert finished.code == 0, finished.read("exit.json")
    entry = finished.read("stages.json")["target"]
    assert entry["tokens"] > 0 and entry["seconds"] > 0
    assert entry["flops"] is entry["flops_forward"] is entry["flops_backward"] is None
    assert finished.read("scores.json")["target"]["cost/flops"] is None


def test_attack_rows_have_the_public_fields(first: Finished) -> None:
    rows = first.read("attacks.json")
    assert {row["attack"] for row in rows} == {"relearn", "quantize"}
    assert all(row.keys() >= ROW for row in rows)
    assert all(isinstance(row["setting"], dict) for row in rows)
    assert any(row["metric"] == "log_odds" for row in rows)


def test_method_none_gives_the_target_and_retrain_the_oracle(run: Runner, first: Finished) -> None:
    wanted = first.read("scores.json")
    for method, model, knowledge_left in (("none", "target", 1.0), ("retrain", "oracle", 0.0)):
        finished = run(f"method={method}", "attack=none")
        scores = finished.read("scores.json")
        assert finished.code == 0
        assert scores["unlearned"]["knowledge_left"] == pytest.approx(knowledge_left)
        assert scores["unlearned"]["forget/nll"] == wanted[model]["forget/nll"]
        assert finished.from_cache["target"] and finished.from_cache["oracle"]
        # Retraining costs what the oracle's training cost; the unchanged target costs nothing.
        assert scores["unlearned"].get("cost/flops") == (wanted["oracle"]["cost/flops"] if model == "oracle" else None)


def test_evaluates_a_checkpoint_it_did_not_train(run: Runner, first: Finished) -> None:
    finished = run(f"model.unlearned={first.rundir.model}", "stages=[evaluate]", "attack=none")
    assert finished.code == 0
    unlearned = first.read("scores.json")["unlearned"]
    assert finished.read("scores.json")["unlearned"]["forget/nll"] == pytest.approx(unlearned["forget/nll"], abs=1e-6)


@pytest.mark.parametrize(
    "more",
    [
        (),
        pytest.param(
            ("model.lora.quantize=nf4", "model.width=64"),
            marks=pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"),
        ),
    ],
    ids=["float32", "nf4"],
)
def test_the_saved_adapter_on_the_target_is_the_unlearned_model(
    more: tuple[str, ...], run: Runner, tmp_path: Path
) -> None:
    """The saved adapter, put on the cached target by peft, gives the logits of the model that erulab merged.

    The target's own weights are meant, not the 4-bit ones under which the adapter was trained.
    """
    options = ("method=ga", "reward=none", "adversary=none", "model.lora.rank=4", "trainer.lr=0.02", "attack=none")
    finished = run(*options, *more, "artifacts.model=adapter", "stages=[target,unlearn]", folder=tmp_path)
    assert finished.code == 0 and not finished.rundir.model.exists()
    (target,), (unlearned,) = ((tmp_path / ".cache" / kind).glob("*/model") for kind in ("learned", "unlearned"))
    before, merged = (AutoModelForCausalLM.from_pretrained(folder) for folder in (target, unlearned))
    ids = torch.arange(2, 22).view(2, 10)
    with torch.no_grad():
        known, forgotten = before(input_ids=ids).logits, merged(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(before, finished.rundir.adapter)(input_ids=ids).logits
    torch.testing.assert_close(adapted, forgotten, rtol=1e-4, atol=1e-4)
    assert (forgotten - known).abs().max() > 0.01
    # The run folder has erulab's card; peft's own, which names the target's folder, stays in the cache.
    cards = [(folder / "README.md").read_text() for folder in (finished.rundir.adapter, unlearned.with_name("adapter"))]
    assert "library_name: peft" in cards[0] and "erulab" in cards[0] and "erulab" not in cards[1]


def test_adapters_on_layers_that_are_not_there_are_refused_before_anything_is_learned(
    run: Runner, tmp_path: Path
) -> None:
    finished = run("method=npo", "adversary=none", "model.lora.rank=4", "model.lora.targets=[query]", folder=tmp_path)
    assert finished.code == 2
    message = finished.read("exit.json")["message"]
    assert "query is no linear layer" in message and "q_proj, k_proj" in message
    assert not (tmp_path / ".cache" / "learned").exists()
