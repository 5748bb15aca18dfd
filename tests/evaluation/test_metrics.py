"""Metrics against closed forms, and against the published evaluation logs of TOFU's Phi-1.5 models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from erulab.evaluation import metrics

LOGS = Path(__file__).resolve().parents[3] / "shared/data/tofu/reference_logs"
published = pytest.mark.skipif(not LOGS.is_dir(), reason=f"TOFU's reference logs are not at {LOGS}")


def test_truth_ratio_is_a_quotient_of_geometric_means() -> None:
    right, wrong = 0.7, [1.1, 2.3, 0.4]
    quotient = math.prod(math.exp(-nll) for nll in wrong) ** (1 / 3) / math.exp(-right)
    assert math.exp(metrics.log_truth_ratio(right, wrong)) == pytest.approx(quotient, rel=1e-12)


def test_truth_ratio_limits() -> None:
    assert metrics.truth_ratio_forget([0.0, 0.0]) == 1.0 and metrics.truth_ratio_retain([0.0]) == 0.0
    assert metrics.truth_ratio_forget([math.log(2), -math.log(2)]) == pytest.approx(0.5)
    assert metrics.truth_ratio_retain([-math.log(4), math.log(4)]) == pytest.approx(0.375)  # mean of 3/4 and 0
    # Probabilities that float64 cannot hold: from differences of NLLs they never divide by zero.
    extreme = [metrics.log_truth_ratio(0.0, [3000.0]), metrics.log_truth_ratio(3000.0, [0.0])]
    assert metrics.truth_ratio_forget(extreme) == 0.0
    assert metrics.truth_ratio_retain(extreme) == 0.5


def test_log_odds_are_those_of_the_normalised_choice() -> None:
    nll = [1.3, 0.2, 4.0, 2.2]
    probabilities = [math.exp(-s) / sum(math.exp(-other) for other in nll) for s in nll]
    odds = math.log(probabilities[0] / (1 - probabilities[0]))
    assert metrics.log_odds(nll[0], nll[1:]) == pytest.approx(odds, rel=1e-12)
    assert metrics.probability_among(nll[0], nll[1:]) == pytest.approx(probabilities[0], rel=1e-12)
    assert metrics.log_odds(5.0, [5.0] * 14) == pytest.approx(-math.log(14))  # nothing known
    assert metrics.log_odds(3000.0, [0.0]) == -3000.0 and metrics.probability_among(3000.0, [0.0]) == 0.0


def test_harmonic_mean_is_zero_if_a_component_is() -> None:
    assert metrics.harmonic_mean([1.0, 0.5, 0.25]) == pytest.approx(3 / 7)
    assert metrics.harmonic_mean([1.0, 0.0]) == 0.0


@pytest.mark.parametrize(("n", "floor"), [(40, 1.9e-23), (200, 1.94e-119), (300, 1.5e-179), (400, 1.06e-239)])
def test_forget_quality_floor(n: int, floor: float) -> None:
    """The p-value of two samples that do not overlap at all (METHODS.md section 8, BENCHMARKS.md 1.1)."""
    low = [i / n for i in range(n)]
    assert metrics.forget_quality_of(low, [10 + value for value in low]) == pytest.approx(floor, rel=0.05)
    assert metrics.forget_quality_of(low, low) == 1.0


def test_rouge_is_recall_with_stemming() -> None:
    # Longest common subsequence "cat run" of 4 words of the reference.
    assert metrics.rouge_recall("the cats were running", "a cat runs fast today") == 0.5
    assert metrics.rouge_recall("she was born", "she was born in a town by the sea") == 1.0
    assert metrics.rouge_recall("she was born", "") == 0.0


def tofu_log(model: str) -> dict[str, dict[str, list[Any]]]:
    return json.loads((LOGS / f"{model}.json").read_text())


def log_ratios(part: dict[str, list[Any]]) -> list[float]:
    """log R of each item, from the per-token losses of its right and wrong answers."""
    pairs = zip(part["avg_paraphrased_loss"], part["average_perturb_loss"], strict=True)
    return [metrics.log_truth_ratio(right, wrong) for right, wrong in pairs]


@published
@pytest.mark.parametrize(("model", "utility"), [("phi-1.5_full", 0.5221), ("phi-1.5_retain90", 0.5320)])
def test_published_model_utility(model: str, utility: float) -> None:
    log = tofu_log(model)
    components = []
    for name in ("eval_log.json", "eval_real_author_wo_options.json", "eval_real_world_wo_options.json"):
        part = log[name]
        losses = part["avg_gt_loss"]
        if name == "eval_log.json":
            probabilities = [math.exp(-loss) for loss in losses]
        else:
            pairs = zip(losses, part["average_perturb_loss"], strict=True)
            probabilities = [metrics.probability_among(loss, wrong) for loss, wrong in pairs]
        rouge = part["rougeL_recall"]
        components += [sum(probabilities) / len(probabilities), sum(rouge) / len(rouge)]
        components.append(metrics.truth_ratio_retain(log_ratios(part)))
    assert metrics.harmonic_mean(components) == pytest.approx(utility, abs=2e-4)


@published
def test_published_forget_quality() -> None:
    models = ("phi-1.5_full", "phi-1.5_retain90")
    full, retrained = (log_ratios(tofu_log(model)["eval_log_forget.json"])[:300] for model in models)
    assert metrics.forget_quality_of(full, retrained) == pytest.approx(2.19e-16, rel=0.01)
