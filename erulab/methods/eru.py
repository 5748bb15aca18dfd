"""eru: Elastic Robust Unlearning (NeurIPS 2025), re-implemented. An elastic reward against a latent adversary.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = mean over forget rows of (2/beta) softplus(-beta (l - m))
    L_retain = sum over retain rows of s / sum over retain rows of T
    s        = -sum_t log p(y_t | x, y_<t)   NLL of a response in nats, over its T supervised tokens;   l = s / T
    l_ref    the same as l, under the model before unlearning, never perturbed
    l        is computed under the adversary's perturbation for a share p of the forget rows; retain rows never are

    m = sg[gamma + lambda_ref * l_ref + alpha * Z]   reward=elastic (default: gamma 0, lambda_ref 0, alpha 0.2)
        Z = clip((D - mean) / max(sd, sd0), -z_max, z_max),   D = l - l_ref, mean and sd those of D in earlier steps
      = gamma                                        reward=reference_free
      = l_ref                                        reward=reference

So the whole problem is

    min over weights of  forget_weight E_forget[(1-p) loss(no perturbation) + p max over perturbations of loss]
                         + retain_weight L_retain

where the maximum is approximated: `adversary=rfa` (default) is one fixed intervention, `adversary=latent_pgd` searches.
The inner player lowers the NLL of the forgotten answer, which raises the loss. With `adversary=none reward.alpha=0`
this is simnpo; with `adversary=none reward=reference`, npo on per-token means.

Published of ERU are its abstract and one figure. Layers, strengths and the margin's statistics are ours ("What ERU is
here" in rewards/README.md), and each of them is an option. The loss is in preference.py, shared with npo, simnpo, dpo.
"""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.preference import PreferenceMethod, PreferenceOptions
from erulab.registry import methods


@dataclass
class ERUOptions(PreferenceOptions):
    name: str = "eru"
    beta: float = 2.5  # inverse temperature, per nat per token
    length_normalize: bool = True


@methods.register(
    "eru",
    ERUOptions,
    paper="ERU, NeurIPS 2025 (a documented re-implementation)",
    needs="a reward (elastic), an adversary (rfa), retain rows",
    defaults=["override /reward@_global_.reward: elastic", "override /adversary@_global_.adversary: rfa"],
)
class ERU(PreferenceMethod):
    """Max-min unlearning: an elastic reward on per-token means, against a latent adversary."""
