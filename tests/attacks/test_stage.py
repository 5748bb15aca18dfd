"""Attacks on three real models: identities end to end, failures on record, and the same rows on any number of ranks."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from erulab.attacks.base import Setting, forget_suites
from erulab.attacks.quantize import Quantize, QuantizeOptions
from erulab.attacks.relearn import Relearn, RelearnOptions, Split
from erulab.attacks.stage import run_attacks
from erulab.data.rows import Benchmark, Role, Suite
from erulab.errors import NumericFault
from erulab.evaluation.aggregate import aggregate
from erulab.evaluation.evaluate import evaluate
from erulab.evaluation.knowledge import knowledge_of, residual
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks
from tests.attacks.conftest import PlainLab
from tests.evaluation.conftest import on_ranks

FORCED = EvaluationOptions(generate=False)
FIELDS = {
    "attack", "setting", "metric", "target", "unlearned", "oracle", "attacked_target", "attacked_unlearned",
    "attacked_oracle", "residual", "residual_attacked", "recovered", "maintained_gap", "maintained_error", "valid",
    "low", "high", "note", "n", "seconds",
}  # fmt: skip
Models = dict[str, LoadedModel]


@dataclass
class Stub:
    """An attack that does one thing to every model, and is scored on all forget rows."""

    change: Any = lambda subject: subject
    found: list[Setting] = field(default_factory=lambda: [{"strength": 1}])

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        return self.found

    def apply(self, subject: LoadedModel, setting: Setting, lab: Any) -> LoadedModel:
        return self.change(subject)

    def scored(self, setting: Setting, benchmark: Benchmark, seed: int) -> tuple[Suite, ...]:
        return forget_suites(benchmark)


def run(attack: Any, models: Models, lab: PlainLab, ranks: Ranks | None = None, **changes: Any) -> list[dict[str, Any]]:
    options = replace(FORCED, **changes)
    return run_attacks({"it": attack}, models, lab.benchmark, lab, options, ranks or Ranks())


def headline(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return next(row for row in rows if row["metric"] == "log_odds")


def same_weights(one: LoadedModel, other: LoadedModel) -> bool:
    weights = other.model.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.model.state_dict().items())


def test_no_attack_gives_k_of_the_evaluation(models: Models, lab: PlainLab) -> None:
    rows = run(Stub(), models, lab)
    scores = {role: evaluate(model, lab.benchmark.suites, FORCED, Ranks()) for role, model in models.items()}
    values, facts = knowledge_of(scores["unlearned"])
    k = residual(values, knowledge_of(scores["target"])[0], knowledge_of(scores["oracle"])[0], facts)
    row = headline(rows)
    assert k.value is not None and 0.05 < k.value < 0.95  # the models do stand apart
    assert row["residual"] == row["residual_attacked"] == pytest.approx(k.value, abs=1e-5)
    assert (row["low"], row["high"]) == pytest.approx((k.low, k.high), abs=1e-5)
    assert row["recovered"] == 0.0 and row["valid"] is True and row["n"] == len(values)
    flat = {role: aggregate(scored, lab.benchmark) for role, scored in scores.items()}
    for role, figures in flat.items():
        assert row[role] == row[f"attacked_{role}"] == pytest.approx(figures["knowledge"], abs=1e-5)
    by_metric = {row["metric"]: row for row in rows}
    assert set(by_metric) == {"log_odds", "forget/choice", "forget_heldout/choice", "retain/choice"}
    for metric in ("forget/choice", "forget_heldout/choice"):
        assert by_metric[metric]["target"] == pytest.approx(flat["target"][metric])
    assert all(set(row) == FIELDS and json.dumps(row, allow_nan=False) for row in rows)


def test_an_attack_that_restores_the_target(models: Models, lab: PlainLab) -> None:
    def restore(subject: LoadedModel) -> LoadedModel:
        return models["target"] if same_weights(subject, models["unlearned"]) else subject

    row = headline(run(Stub(restore), models, lab))
    assert (row["residual_attacked"], row["recovered"]) == pytest.approx((1.0, 1.0)) and row["valid"]


@pytest.mark.parametrize("options", [RelearnOptions(samples=[0]), RelearnOptions(lr=0.0)])
def test_relearning_nothing_recovers_nothing(models: Models, lab: PlainLab, options: RelearnOptions) -> None:
    attack = Relearn(options)
    row = headline(run(attack, models, lab))
    assert row["recovered"] == 0.0 and row["residual_attacked"] == row["residual"]
    # All values are of the scored half.
    scored = attack.scored({}, lab.benchmark, lab.seed)
    values, _ = knowledge_of(evaluate(models["target"], scored, FORCED, Ranks()))
    assert row["n"] == len(values) and row["target"] == pytest.approx(float(np.mean(values)), abs=1e-5)


def test_relearning_all_rows_brings_them_back_and_changes_no_model(models: Models, lab: PlainLab) -> None:
    before = {role: copy.deepcopy(model.model.state_dict()) for role, model in models.items()}
    attack = Relearn(RelearnOptions(split=Split.all, lr=3e-3, epochs=6))
    rows = run(attack, models, lab)
    choice = next(row for row in rows if row["metric"] == "forget/choice")
    assert (
        choice["attacked_unlearned"] > choice["unlearned"] + 0.2 and choice["attacked_oracle"] > choice["oracle"] + 0.2
    )
    # The oracle learned the same: that is no sign of anything hidden, and the attack does not count.
    assert headline(rows)["valid"] is False and "of its gap to the oracle" in headline(rows)["note"]
    for role, model in models.items():
        assert all(torch.equal(value, before[role][name]) for name, value in model.model.state_dict().items())


def test_an_attack_that_destroys_the_model_does_not_count(models: Models, lab: PlainLab) -> None:
    def destroy(subject: LoadedModel) -> LoadedModel:
        with torch.no_grad():
            subject.model.get_output_embeddings().weight.zero_()
        return subject

    rows = run(Stub(destroy), models, lab)
    assert all(row["valid"] is False for row in rows)
    assert headline(rows)["residual_attacked"] is None and "utility" in headline(rows)["note"]
    retain = next(row for row in rows if row["metric"] == "retain/choice")
    assert retain["attacked_target"] == 0.0 < 0.8 < retain["target"]


def test_a_failure_is_on_record_and_a_numeric_fault_stops_the_run(models: Models, lab: PlainLab) -> None:
    def fail(subject: LoadedModel) -> LoadedModel:
        if same_weights(subject, models["oracle"]):
            raise RuntimeError("no room left")
        return subject

    (row,) = run(Stub(fail), models, lab)
    assert set(row) == FIELDS and row["valid"] is False and row["residual_attacked"] is None
    assert row["note"] == "failed on the oracle: RuntimeError: no room left"

    def diverge(subject: LoadedModel) -> LoadedModel:
        raise NumericFault("loss is nan")

    with pytest.raises(NumericFault):
        run(Stub(diverge), models, lab)


def test_scores_that_are_not_finite_are_none(models: Models, lab: PlainLab) -> None:
    def break_it(subject: LoadedModel) -> LoadedModel:
        with torch.no_grad():
            subject.model.get_output_embeddings().weight.fill_(float("nan"))
        return subject

    rows = run(Stub(break_it), models, lab)
    assert headline(rows)["attacked_unlearned"] is None and "finite" in headline(rows)["note"]
    assert all(row["valid"] is False and json.dumps(row, allow_nan=False) for row in rows)


def test_two_ranks_report_what_one_does(models: Models, lab: PlainLab) -> None:
    attack = Quantize(QuantizeOptions(bits=[8, 3]))
    one = run(attack, models, lab)
    for rows in on_ranks(2, lambda ranks: run(attack, models, lab, ranks)):
        assert [(row["setting"], row["metric"]) for row in rows] == [(row["setting"], row["metric"]) for row in one]
        for mine, other in zip(rows, one, strict=True):
            for name in FIELDS - {"seconds", "setting"}:
                expected = other[name]
                assert mine[name] == (pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected)


def test_rows_without_values_are_judged_by_probability_and_few_of_them_by_rouge(models: Models, lab: PlainLab) -> None:
    """TOFU's kind of rows, and rows of a user's own without any wrong answer."""

    def strip(suite: Suite, **gone: Any) -> Suite:
        return replace(suite, rows=tuple(replace(row, value="", candidates=(), **gone) for row in suite.rows))

    world = lab.benchmark
    tofu = replace(lab, benchmark=replace(world, suites=tuple(strip(suite) for suite in world.suites)))
    rows = run(Stub(), models, tofu, generate=True, max_new_tokens=20)
    names = ("probability", "rouge", "choice")
    expected = ["log_odds", *[f"forget/{name}" for name in names]]
    expected += [f"forget_heldout/{name}" for name in ("probability", "choice")]
    assert [row["metric"] for row in rows] == [*expected, "retain/choice"]
    forget = tofu.benchmark.suite("forget")
    assert forget.role is Role.FORGET and len(forget.rows) == 30
    whole = evaluate(models["target"], [forget], EvaluationOptions(max_new_tokens=20), Ranks())
    rouge = next(row for row in rows if row["metric"] == "forget/rouge")
    assert rouge["target"] == pytest.approx(np.mean([row.figures["rouge"] for row in whole]))

    bare = tuple(strip(suite, perturbed=(), paraphrase=None) for suite in world.suites)
    rows = run(Stub(), models, replace(lab, benchmark=replace(world, suites=bare)))
    assert [row["metric"] for row in rows] == ["forget/probability", "forget_heldout/probability", "retain/probability"]
    assert rows[0]["residual"] == rows[0]["residual_attacked"] is not None and rows[0]["maintained_error"] == 1.0
