"""FAULTS 37: an attack that leaves much of the blocks as it is shows knowledge, but never robustness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest

from erulab.attacks.base import Attack, Attempt, Setting
from erulab.attacks.prune import Prune, PruneOptions
from erulab.attacks.quantize import Quantize, QuantizeOptions
from erulab.attacks.sequence import AttackSequence, SequenceOptions
from erulab.attacks.weights.left_alone import unchanged
from erulab.data.rows import Benchmark
from erulab.models.loaded import LoadedModel
from erulab.models.lora import merged, with_lora
from erulab.reporting.robustness import judge_attacks, worst_case
from tests.attacks.conftest import PlainLab, attacked, headline
from tests.attacks.weights.mixtures import mixture

Models = dict[str, LoadedModel]


@dataclass
class Idle(Attack):
    """Changes nothing, and says which shares of the weights it left alone."""

    left: dict[str, float]

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        return [{}]

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Any) -> Iterator[Attempt]:
        yield Attempt({}, partial(lab.score, subject), subject, left_alone=self.left)


@pytest.mark.parametrize("left", [{"mlp.experts": 0.7, "mlp.gate.weight": 0.01}, {"mlp.gate.weight": 0.002}, {}])
@pytest.mark.parametrize("knows", ["target", "oracle"])
def test_what_is_left_alone_is_said(left: dict[str, float], knows: str, models: Models, lab: PlainLab) -> None:
    """FAULTS 37: K is 1 or 0, as the target or the oracle stands for the unlearned model."""
    row = headline(attacked(Idle(left), {**models, "unlearned": models[knows]}, lab))
    words = {
        0.71: "71 % of the blocks' weights were left as they are (mlp.experts, mlp.gate.weight)",
        0.002: "0.2 % of the blocks' weights were left as they are (mlp.gate.weight)",
        0: "",
    }[sum(left.values())]
    counts = knows == "target" or sum(left.values()) < 0.05
    assert row["valid"] is counts and row["standing"] == ("counts" if counts else "not_valid")
    assert words in (row["note"] if counts else row["reason"])
    assert row["knowledge_left_attacked"] == pytest.approx(float(knows == "target"))
    assert ("left as they are" in row["note"]) == (counts and bool(left))
    worst, (judged,) = worst_case([row], 0.0, 0.1), judge_attacks([row], 0.1)
    assert ("71 %" in judged.words) == ("robustness: unknown" in worst.words) == (not counts)


def test_experts_that_get_no_adapters_are_counted() -> None:
    """FAULTS 37: relearning through adapters leaves router and experts of a mixture as they are."""
    model = mixture("mixtral")
    alone = {name: parameter.numel() for name, parameter in model.model.layers[0].mlp.named_parameters()}
    total = sum(one.numel() for one in model.model.layers[0].parameters() if one.dim() > 1)
    before = LoadedModel(model, None, None)  # type: ignore[arg-type]
    adapted = with_lora(before.copy(), rank=2, alpha=4, seed=0)
    expected = {f"mlp.{name}": pytest.approx(size / total) for name, size in alone.items()}
    assert unchanged(before, adapted) == expected  # not merged yet
    for name, parameter in adapted.model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    assert unchanged(before, merged(adapted)) == expected


def test_of_a_sequence_it_is_what_any_step_leaves_alone(lab: PlainLab) -> None:
    model = LoadedModel(mixture("olmoe"), None, None)  # type: ignore[arg-type]
    own = replace(lab, models={"target": model})
    options = SequenceOptions(steps=["prune", "quantize"], options={"prune": {"shares": [0.5]}})
    attack = AttackSequence(options)
    setting = attack.settings(lab.benchmark, 0)[0]
    (attempt,) = attack.attempts(model, setting, own)
    (pruned,) = Prune(PruneOptions(shares=[0.5])).attempts(model, {}, own)
    (rounded,) = Quantize(QuantizeOptions()).attempts(model, {"backend": "rtn", "bits": 8}, own)
    # A block has 3072 weights in attention and 18432 in experts.
    router = {"mlp.gate.weight": pytest.approx(128 / (128 + 3072 + 18432))}
    assert attempt.left_alone == pruned.left_alone == rounded.left_alone == router
