"""Runs that forget the tokens which a model that never saw the facts does not expect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from erulab.config.compose import compose_config
from erulab.errors import ConfigError
from erulab.models.loading import chat_of
from erulab.registry import datasets
from erulab.stages.surprise import FILE
from erulab.tokens.templates import NO_OVERRIDES
from tests.pipeline.conftest import Finished, Runner, small

SURPRISING = ("method=simnpo", "method.forget_tokens=surprising", "attack=none")


@pytest.fixture(scope="module")
def done(run: Runner) -> Finished:
    made = run(*SURPRISING)
    assert made.code == 0
    return made


def cached(done: Finished, kind: str) -> list[Path]:
    return sorted((done.rundir.path.parents[1] / ".cache" / kind).glob("*/entry.json"))


def learned(done: Finished, role: str) -> Path:
    key = done.read("stages.json")[role]["key"]
    return done.rundir.path.parents[1] / ".cache" / "learned" / key / "model"


def test_the_table_holds_the_oracles_nll_of_every_token(done: Finished) -> None:
    (entry,) = cached(done, "surprise")
    stored = load_file(entry.parent / FILE)["nll"]
    folder = learned(done, "oracle")
    chat, model = chat_of(str(folder), NO_OVERRIDES), AutoModelForCausalLM.from_pretrained(folder)
    config = compose_config(small(SURPRISING))
    found = []
    for row in datasets.build(config.dataset).load(config.seed).forget:
        encoded = chat.encode(row)
        with torch.no_grad():
            logp = model(input_ids=torch.tensor([encoded.ids])).logits[0].log_softmax(-1)
        found += [-logp[i - 1, encoded.ids[i]].item() for i in range(encoded.start, encoded.end)]
    torch.testing.assert_close(stored.float(), torch.tensor(found), rtol=1e-3, atol=1e-3)


def test_another_threshold_runs_no_model_again(done: Finished, run: Runner) -> None:
    other = run(*SURPRISING, "method.surprise=30")
    assert other.code == 0 and len(cached(other, "surprise")) == 1
    assert other.read("stages.json")["unlearn"]["key"] != done.read("stages.json")["unlearn"]["key"]
    assert "keep their most surprising one" in (other.rundir.path / "run.log").read_text()


def test_a_later_command_finds_what_was_unlearned(done: Finished, run: Runner) -> None:
    scored = done.read("scores.json")["unlearned"]
    again = run(*SURPRISING, "stages=[evaluate,report]")
    assert again.code == 0 and again.rundir.path == done.rundir.path
    assert again.read("scores.json")["unlearned"] == scored


def test_costs_hold_the_pass_over_the_rows(done: Finished) -> None:
    stage, cache = done.read("stages.json")["unlearn"], done.rundir.path.parents[1] / ".cache"
    entries = [
        cache / kind / key / "entry.json"
        for kind, key in zip(("surprise", "unlearned"), stage["key"].split("+"), strict=True)
    ]
    parts = [json.loads(entry.read_text())["costs"]["flops"] for entry in entries]
    assert parts[0] > 0 and stage["flops"] == pytest.approx(sum(parts))


def test_span_and_same_sentence_run_to_their_end(run: Runner) -> None:
    made = run("method=simnpo", "method.forget_tokens=span", "method.pairs=same_sentence", "attack=none")
    assert made.code == 0


@pytest.mark.parametrize("spare", [(), ("model.target=x",)])
def test_without_an_oracle_the_embedded_base_tells_nothing(spare: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match="drawn at random.*add oracle to stages"):
        compose_config(small((*SURPRISING, *spare, "stages=[target,unlearn,report]")))
