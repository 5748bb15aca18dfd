"""simnpo: SimNPO (Fan et al. 2024). NPO without a reference model, on per-token means.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = mean over forget rows of (2/beta) softplus(-beta (l - m))
    L_retain = sum over retain rows of s / sum over retain rows of T
    s        = -sum_t log p(y_t | x, y_<t)   NLL of a response in nats, over its T supervised tokens;   l = s / T
    l_ref    the same as l, under the model before unlearning

    m = gamma                                                  reward=reference_free (default, gamma 0)
      = l_ref                                                  reward=reference
      = sg[gamma + lambda_ref * l_ref + alpha * Z(l - l_ref)]  reward=elastic (Z: rewards/elastic.py)

gamma is `reward.gamma`, in nats per token; the paper's gamma (equation 4) is beta times ours. A row's weight in the
gradient with respect to s is 2 sigmoid(-beta (l - gamma)) / T. For beta -> 0 this is gradient ascent on per-row means.
The loss is in preference.py, which also serves npo, dpo and eru.
"""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.preference import PreferenceMethod, PreferenceOptions
from erulab.registry import methods


@dataclass
class SimNPOOptions(PreferenceOptions):
    name: str = "simnpo"
    beta: float = 2.5  # inverse temperature, per nat per token
    length_normalize: bool = True


@methods.register(
    "simnpo",
    SimNPOOptions,
    paper="Fan et al. 2024, arXiv:2410.07163",
    needs="a reward (reference_free), retain rows",
    defaults=["override /reward@_global_.reward: reference_free"],
)
class SimNPO(PreferenceMethod):
    """Reference-free, length-normalised negative preference optimisation."""
