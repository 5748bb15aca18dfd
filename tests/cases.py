"""The tables that drive the contract tests: every method, reward, adversary and attack with tiny settings.

A new plugin gets all contract tests with one line here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """A method with the reward and adversary it is tested with, and options that differ from the defaults."""

    method: str
    reward: str = "none"
    adversary: str = "none"
    method_options: dict[str, Any] = field(default_factory=dict)
    reward_options: dict[str, Any] = field(default_factory=dict)
    adversary_options: dict[str, Any] = field(default_factory=dict)
    trainer_options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        named = (self.method_options, self.reward_options, self.trainer_options)
        extra = [str(v) for options in named for v in options.values()]
        return "-".join([self.method, self.reward, self.adversary, *extra])


CASES = (
    Case("ga"),
    Case("gd"),
    Case("kl"),
    Case("idk"),
    Case("npo", "reference"),
    Case("simnpo", "reference_free"),
    Case("dpo", "reference"),
    Case("dpo", "reference", method_options={"pairs": "alternative"}),
    Case("altpo", "reference", method_options={"alternatives": 2}),
    Case("dpo", "reference", method_options={"pairs": "same_sentence", "forget_tokens": "span"}),
    Case("simnpo", "reference_free", method_options={"forget_tokens": "span"}),
    Case("eru", "elastic"),
    Case("eru", "elastic", reward_options={"z": "raw"}),
    Case("eru", "elastic", method_options={"pairs": "refusal"}),
    Case("eru", "elastic", "rfa", adversary_options={"n": 4, "warmup": 0.0, "every": 2}),
    Case("eru", "elastic", "random_direction"),
    Case("eru", "elastic", "noise"),
    Case("eru", "elastic", "latent_pgd", adversary_options={"steps": 2}),
    Case(
        "npo",
        "reference",
        "latent_pgd",
        adversary_options={"steps": 2, "ball": "sequence", "eps": 2.0, "tokens": "all"},
    ),
    Case("idk", "none", "latent_pgd", adversary_options={"steps": 2}),
    Case("wga"),
    # With its own powers the loss is flat over most probabilities, and falls and rises as a token becomes unlikely.
    Case("satimp", method_options={"beta1": 0.5}),
    Case("undial"),
    Case("ceu"),
    Case("jensun"),
    Case("max_entropy"),
    Case("pdu", method_options={"retain_weight": 2.0, "warmup": 0.2}),
    Case("flat"),
    Case("idk_ap"),
    Case("rmu", method_options={"retain_weight": 10.0}),
    Case("rmu", method_options={"layer": 1, "adaptive": True, "c": 3.0}),
    Case("rmu", "none", "noise", method_options={"retain": "nll", "retain_weight": 1.0}),
    Case("circuit_breaker"),
    Case("circuit_breaker", method_options={"layers": [3], "retain": "nll"}),
    Case("repnoise", method_options={"beta": 0.1}),
    Case("repnoise", method_options={"layers": [3], "retain": "none"}),
    # The final norm has the adversary's hook, and reads states of other layers too.
    Case("repnoise", "none", "rfa", adversary_options={"n": 4, "warmup": 0.0, "every": 2}),
    Case("npo", "reference", "sam", adversary_options={"rho": 0.05}),
    Case("tar", "none", "relearning", adversary_options={"steps": 2, "every": 1, "lr": 1e-3}),
    Case("gd", trainer_options={"combine": "pcgrad"}),
    Case("npo", "reference", trainer_options={"combine": "blur"}),
    Case("npo", "reference", "sam", trainer_options={"combine": "gru"}),
    Case("npo", "reference", trainer_options={"retain_ratio": 2.0}),
)


@dataclass(frozen=True)
class AttackCase:
    """An attack with options that make it quick on a tiny model."""

    attack: str
    options: dict[str, Any] = field(default_factory=dict)


ATTACKS = (
    AttackCase("relearn", {"epochs": 1, "repeats": 2}),
    AttackCase("quantize", {"bits": [4]}),
    AttackCase("sequence", {"options": {"quantize": {"bits": [8]}, "relearn": {"epochs": 1, "repeats": 1}}}),
    AttackCase("jailbreak", {"templates": ["reverse_query", "in_context"]}),
    AttackCase("prefill", {"words": [2]}),
    AttackCase("few_shot", {"shots": [1, 2], "repeats": 1}),
    AttackCase("paraphrase"),
    AttackCase("sample", {"samples": 4, "k": [1, 2], "rows": 6, "max_new_tokens": 12}),
    AttackCase("logit_lens"),
    AttackCase("probe", {"layers": [1, 2]}),
    AttackCase("mia"),
    AttackCase("abliterate", {"layers": [1]}),
    AttackCase("prune", {"shares": [0.2, 0.5]}),
    AttackCase("soft_prompt", {"tokens": 3, "steps": 2, "repeats": 1}),
    AttackCase("gcg", {"tokens": 2, "steps": 2, "width": 8, "facts": 2, "repeats": 1}),
)
