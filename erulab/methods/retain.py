"""The terms on retain rows, `method.retain`: each is a sum over a count of the global batch.

    none    0
    nll     sum over tokens of NLL_t / sum over rows of T
    kl      sum over tokens of KL(p_ref || p) / sum over rows of T
    js      sum over tokens of JS(p, p_ref) / sum over rows of T
    states  sum over own tokens and layers of mean over the width of (h_l - h_l,ref)^2 / number of own tokens

p_ref, h_ref: of the model before unlearning, kept frozen (with LoRA: the model without its adapters). kl, js and
states and their gradients are 0 at the start, where the two models are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import lazy_loader

from erulab.methods.seen import RetainRows, TokenValue
from erulab.methods.states import squared_distance

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


class Retain(Enum):
    """The term on retain rows: see the module's formulas."""

    none = "none"
    nll = "nll"  # NLL of retain rows
    kl = "kl"  # KL to the model before unlearning
    js = "js"  # Jensen-Shannon divergence to it
    states = "states"  # squared distance of hidden states to its states, at the method's layers


class Normalizer(Enum):
    """The count over the global batch that a sum of losses is divided by."""

    tokens = "tokens"  # supervised tokens of the responses (or of the refusals)
    rows = "rows"  # rows
    states = "states"  # tokens of prompts and responses, for losses on hidden states


@dataclass(frozen=True)
class RetainTerm:
    """One term of L_retain: `weight * sum(loss(rows)) / count`."""

    name: str
    loss: Callable[[RetainRows], torch.Tensor]  # -> (rows,) or (tokens,), to be summed
    normalizer: Normalizer = Normalizer.tokens
    weight: float = 1.0
    nll: bool = False  # whether it reads the NLL of retain rows, or logs it
    values: tuple[TokenValue, ...] = ()
    states: bool = False  # whether it reads states at the method's layers, of policy and reference
    paired: bool = False  # whether it reads refusals to the retain prompts


def kl_to_reference(logits: torch.Tensor, labels: torch.Tensor, reference_logits: torch.Tensor | None) -> torch.Tensor:
    """Returns (positions,) KL(p_ref || p) over the whole vocabulary, nats; value and gradient are 0 at p = p_ref.

    Args:
        logits, reference_logits: (positions, vocabulary), of the policy and of the model before unlearning.
        labels: not read.
    """
    assert reference_logits is not None
    with torch.no_grad():
        reference = torch.nn.functional.log_softmax(reference_logits, -1)
    logp = torch.nn.functional.log_softmax(logits, -1)
    return (reference.exp() * (reference - logp)).sum(-1)


def js_to_reference(logits: torch.Tensor, labels: torch.Tensor, reference_logits: torch.Tensor | None) -> torch.Tensor:
    """Returns (positions,) JS(p, p_ref) = KL(p || m)/2 + KL(p_ref || m)/2 with m = (p + p_ref)/2, in [0, log 2] nats.

    Args:
        logits, reference_logits: (positions, vocabulary), of the policy and of the model before unlearning.
        labels: not read.
    Source: JensUn, arXiv:2509.02820.
    """
    assert reference_logits is not None
    logp = torch.nn.functional.log_softmax(logits, -1)
    reference = torch.nn.functional.log_softmax(reference_logits, -1)
    log_m = torch.logaddexp(logp, reference) - torch.log(torch.tensor(2.0, dtype=logp.dtype, device=logp.device))
    return ((logp.exp() * (logp - log_m)).sum(-1) + (reference.exp() * (reference - log_m)).sum(-1)) / 2


def _nll(rows: RetainRows) -> torch.Tensor:
    return rows.policy.total


def _state_distances(rows: RetainRows) -> torch.Tensor:
    pairs = [(states, rows.reference_states[layer]) for layer, states in rows.policy.states.items()]
    return torch.stack([squared_distance(states, reference) for states, reference in pairs]).sum(0)


_KL = TokenValue("kl", kl_to_reference, reads_reference=True)
_JS = TokenValue("js", js_to_reference, reads_reference=True)
RETAIN_TERMS: dict[Retain, tuple[RetainTerm, ...]] = {
    Retain.none: (),
    Retain.nll: (RetainTerm("nll", _nll, nll=True),),
    Retain.kl: (RetainTerm("kl", lambda rows: rows.policy.values["kl"], nll=True, values=(_KL,)),),
    Retain.js: (RetainTerm("js", lambda rows: rows.policy.values["js"], values=(_JS,)),),
    Retain.states: (RetainTerm("states", _state_distances, Normalizer.states, states=True),),
}
