"""Evaluations during unlearning (trainer.eval_every): the figures of the evaluation, without an effect on training."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.pipeline.conftest import Finished, Runner

STAGES = ("attack=none", "stages=[target,oracle,unlearn,evaluate]", "evaluation.generate=false")


def evaluations(run: Finished) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in run.rundir.metrics_jsonl.read_text().splitlines()]
    return [line for line in lines if any(name.startswith("eval/") for name in line)]


@pytest.mark.parametrize("more", [(), ("model.lora.rank=2",)], ids=["all weights", "adapters"])
def test_the_last_evaluation_on_the_way_has_the_final_scores(run: Runner, more: tuple[str, ...]) -> None:
    watched = run(*STAGES, *more, "trainer.eval_every=2", "trainer.log_every=3")
    assert watched.code == 0
    first, last = evaluations(watched)
    assert [first["step"], last["step"]] == [1, 3]  # steps count from 0: after two and after four of four
    scores = watched.read("scores.json")["unlearned"]
    named = {name.removeprefix("eval/"): value for name, value in last.items() if name.startswith("eval/")}
    assert {"forget/log_odds", "forget_heldout/choice", "retain_unrehearsed/choice"} <= set(named)
    assert not any(name.startswith("unseen") for name in named)
    for name, value in named.items():
        assert value == pytest.approx(scores[name], abs=1e-5), name
    assert first["eval/forget/log_odds"] != last["eval/forget/log_odds"]


def test_evaluating_on_the_way_changes_no_weight_and_no_cost(run: Runner) -> None:
    # Another rate than the first run's, which made the reference table: both runs find it, so that neither pays for it.
    plain, watched = (run(*STAGES, "trainer.lr=2e-4", *more) for more in ((), ("trainer.eval_every=1",)))
    weights = [load_file(one.rundir.model / "model.safetensors") for one in (plain, watched)]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    costs = [one.read("scores.json")["unlearned"]["cost/flops"] for one in (plain, watched)]
    assert costs[0] == costs[1]
    assert len(evaluations(watched)) == 4 and evaluations(plain) == []
