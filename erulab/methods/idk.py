"""IDK / refusal training (TOFU; "RT" in RWKU): answer forget prompts with a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.methods.base import ForgetRows, Margin, MethodOptions, Normalizer, Pairs, Trains
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


@dataclass
class IDKOptions(MethodOptions):
    name: str = "idk"


@methods.register("idk", IDKOptions, paper="TOFU, arXiv:2401.06121", needs="refusals, retain rows")
class Refusal:
    """Fine-tuning on refusals to the forget prompts, with retain NLL."""

    trains = Trains.refusal
    # Its own mean over the refusals' tokens, not one mean with the retain rows.
    normalizer = Normalizer.tokens
    pairs = Pairs.none
    takes_reward = False

    def __init__(self, options: IDKOptions) -> None:
        self.options = options

    def losses(self, rows: ForgetRows, margin: Margin | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return rows.policy.total, {"refusal_nll": rows.policy.mean}
