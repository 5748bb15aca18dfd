"""dpo: direct preference optimisation for unlearning (TOFU, Zhang et al. 2024). Prefers a refusal to the answer.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = mean over forget rows of (2/beta) softplus(-beta (u - m)),   u = s(forgotten answer) - s(paired answer)
    L_retain = sum over retain rows of s / sum over retain rows of T
    s        = -sum_t log p(y_t | x, y_<t)   NLL of a response in nats, over its T supervised tokens
    u_ref    the same as u, under the model before unlearning

    m = u_ref                                                  reward=reference (default)
      = gamma                                                  reward=reference_free
      = sg[gamma + lambda_ref * u_ref + alpha * Z(u - u_ref)]  reward=elastic (Z: rewards/elastic.py)

With the default reward this is 2/beta times equation 7 of Rafailov et al. with the paired answer preferred; with
`method.scale=1` it is the equation itself. At the start L_forget is 2 log(2) / beta. The loss falls when the paired
answer becomes likely as well as when the forgotten one becomes unlikely, and only the latter is forgetting: look at the
metrics `nll` and `paired_nll` apart. The loss is in preference.py, which also serves npo, simnpo and eru.
"""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.needs import Pairs
from erulab.methods.preference import PreferenceMethod, PreferenceOptions
from erulab.options import require
from erulab.registry import methods


@dataclass
class DPOOptions(PreferenceOptions):
    name: str = "dpo"
    beta: float = 0.1  # inverse temperature, per nat of the sequence
    pairs: Pairs = Pairs.refusal

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = "refusal, alternative, fabricated or same_sentence (without a pair dpo is npo)"
        require(self.pairs is not Pairs.none, "pairs", allowed, "none")


@methods.register(
    "dpo",
    DPOOptions,
    paper="Rafailov et al. 2023, arXiv:2305.18290; TOFU, arXiv:2401.06121",
    needs="a reward (reference), refusals, retain rows",
    defaults=["override /reward@_global_.reward: reference"],
)
class DPO(PreferenceMethod):
    """Direct preference optimisation of a refusal over the forget response, on sequence sums."""
