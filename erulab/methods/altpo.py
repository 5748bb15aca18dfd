"""altpo: alternate preference optimisation (Mekala et al. 2024). Prefers plausible wrong answers of the model's own.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = mean over forget rows of (2/beta) softplus(-beta (u - m)),   u = s(forgotten answer) - s(alternative)
    L_retain = sum over retain rows of s / sum over retain rows of T
    s        = -sum_t log p(y_t | x, y_<t)   NLL of a response in nats, over its T supervised tokens
    m        = u_ref, the same as u under the model before unlearning   (reward=reference, the default)

That is dpo's loss. What differs is the preferred answer: before training, the target is asked for `alternatives` wrong
answers to each forget prompt (`template` around it, `temperature`, `max_new_tokens`), which evaluation/alternatives.py
samples from its own distribution without the true answer. A row's alternatives take turns, one in each pass over the
rows [design]; with one alternative it is dpo on that answer. They are a product of their own in the cache, and the
report shows some of them.

When to use it: where the model should go on answering fluently about the forgotten subject; published scores are among
the best on TOFU. What it costs: generating the alternatives once (about `alternatives` responses per forget row),
then as dpo: two sequences per forget row. Limit: the loss also falls when an alternative becomes likely; look at the
metrics `nll` and `paired_nll` apart. A target that knows nothing but its data answers with other facts of its data.
"""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.needs import Alternatives, Needs, Pairs
from erulab.methods.preference import PreferenceMethod, PreferenceOptions
from erulab.options import require, require_positive
from erulab.registry import methods


@dataclass
class AltPOOptions(PreferenceOptions):
    name: str = "altpo"
    beta: float = 0.1  # inverse temperature, per nat of the sequence
    pairs: Pairs = Pairs.alternative
    retain_weight: float = 2.0
    alternatives: int = 5  # answers that the target is asked for, per forget row
    temperature: float = 1.0  # of sampling them; the logits are divided by it
    max_new_tokens: int = 64  # longest alternative
    template: str = "{prompt}"  # how the target is asked; {prompt} stands for the row's prompt

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.pairs is Pairs.alternative, "pairs", "alternative (the answers are generated)", self.pairs.name)
        require_positive("alternatives", self.alternatives)
        require_positive("temperature", self.temperature)
        require_positive("max_new_tokens", self.max_new_tokens)
        require("{prompt}" in self.template, "template", "a text with {prompt} in it", repr(self.template))


@methods.register(
    "altpo",
    AltPOOptions,
    paper="Mekala et al. 2024, arXiv:2409.13474",
    needs="a reward (reference), prompts, retain rows",
    defaults=["override /reward@_global_.reward: reference"],
)
class AltPO(PreferenceMethod):
    """Direct preference optimisation of wrong answers that the target itself generates."""

    options: AltPOOptions

    @property
    def needs(self) -> Needs:
        o = self.options
        wanted = Alternatives(o.alternatives, o.temperature, o.max_new_tokens, o.template)
        return Needs(pairs=o.pairs, generated=wanted, reward=True)
