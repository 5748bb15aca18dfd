"""idk: refusal training (TOFU; "RT" in RWKU). Learns to answer forget prompts with a refusal.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = sum over forget rows of s(x, refusal) / sum over forget rows of the refusal's T
    L_retain = sum over retain rows of s / sum over retain rows of T
    s        = -sum_t log p(y_t | x, y_<t)   NLL of a response in nats, over its T supervised tokens

A row's refusal is its own, or drawn once per run by (seed, row id). The two terms are separate means: one mean over
both kinds of rows would give the longer responses more weight. The forgotten answer is in no term; an adversary lowers
its NLL all the same, and perturbs the refusal's forward by the same perturbation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.methods.base import GradientMethod, Margin, MethodOptions
from erulab.methods.needs import Answer, Needs, Step
from erulab.methods.retain import Normalizer
from erulab.methods.seen import ForgetRows
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


@dataclass
class IDKOptions(MethodOptions):
    name: str = "idk"


@methods.register("idk", IDKOptions, paper="TOFU, arXiv:2401.06121", needs="refusals, retain rows")
class Refusal(GradientMethod):
    """Fine-tuning on refusals to the forget prompts, with retain NLL."""

    @property
    def needs(self) -> Needs:
        return Needs(answer=Answer.refusal, normalizer=Normalizer.tokens)

    def losses(
        self, rows: ForgetRows, margin: Margin | None, step: Step
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return rows.policy.total, {"refusal_nll": rows.policy.mean}
