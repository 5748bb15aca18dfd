"""npo: negative preference optimisation (Zhang et al. 2024). DPO's loss with the forgotten answer as the loser alone.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = mean over forget rows of (2/beta) softplus(-beta (s - m))
    L_retain = sum over retain rows of s / sum over retain rows of T
    s        = -sum_t log p(y_t | x, y_<t)   NLL of a response in nats, over its T supervised tokens
    s_ref    the same under the model before unlearning

    m = s_ref                                                  reward=reference (default)
      = gamma                                                  reward=reference_free
      = sg[gamma + lambda_ref * s_ref + alpha * Z(s - s_ref)]  reward=elastic (Z: rewards/elastic.py)

With the default reward this is the paper's equation 3, (2/beta) log(1 + (p / p_ref)^beta) per row. At the start
L_forget is 2 log(2) / beta, and its gradient is that of gradient ascent on s, whatever beta; a row's weight in it is
2 sigmoid(-beta (s - s_ref)), which falls to 0 as the row is forgotten. For beta -> 0 it is gradient ascent everywhere.
The loss is in preference.py, which also serves simnpo, dpo and eru.
"""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.preference import PreferenceMethod, PreferenceOptions
from erulab.registry import methods


@dataclass
class NPOOptions(PreferenceOptions):
    name: str = "npo"
    beta: float = 0.1  # inverse temperature, per nat of the sequence


@methods.register(
    "npo",
    NPOOptions,
    paper="Zhang et al. 2024, arXiv:2404.05868",
    needs="a reward (reference), retain rows",
    defaults=["override /reward@_global_.reward: reference"],
)
class NPO(PreferenceMethod):
    """Negative preference optimisation on sequence sums, against the target as reference."""
