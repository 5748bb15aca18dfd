"""Small methods for the tests of costs: each reads something else of a forward, or trains fewer weights."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch

from erulab.methods.base import GradientMethod, Margin, MethodOptions, block_of
from erulab.methods.needs import Needs, Pairs, Step
from erulab.methods.retain import Normalizer, Retain, RetainTerm, kl_to_reference
from erulab.methods.seen import ForgetRows, TokenValue
from erulab.registry import Entry

_KL = TokenValue("kl", kl_to_reference, reads_reference=True)
_GAP = TokenValue("gap", lambda logits, labels, reference: logits.max(-1).values - logits.mean(-1))


class Asks(Enum):
    """What a probe reads of the forget rows."""

    states = "states"
    compared_states = "compared_states"
    values = "values"
    compared_values = "compared_values"
    nll_and_values = "nll_and_values"
    lens = "lens"
    pairs = "pairs"


class Trains(Enum):
    """The weights that a probe trains."""

    all = "all"
    down = "down"  # the last matrices of the two blocks below the deepest layer
    below = "below"  # all blocks below the deepest layer
    above = "above"  # the blocks from layer 1 on, and the head


NEEDS = {
    Asks.states: Needs(nll=False, states=True, normalizer=Normalizer.states),
    Asks.compared_states: Needs(nll=False, states=True, reference_states=True, normalizer=Normalizer.states),
    Asks.values: Needs(nll=False, values=(_GAP,), normalizer=Normalizer.tokens),
    Asks.compared_values: Needs(nll=False, values=(_KL,), normalizer=Normalizer.tokens),
    Asks.nll_and_values: Needs(values=(_GAP, _KL), normalizer=Normalizer.tokens),
    Asks.lens: Needs(nll=False, lens=True, normalizer=Normalizer.tokens),
    Asks.pairs: Needs(nll=False, values=(_GAP,), pairs=Pairs.refusal, normalizer=Normalizer.tokens),
}


@dataclass
class ProbeOptions(MethodOptions):
    """Options of the probe; `layers`: those whose states it reads."""

    name: str = "probe"
    asks: Asks = Asks.states
    trained: Trains = Trains.all
    read: tuple[int, ...] = (2,)
    refusals: bool = False  # whether the retain term compares with refusals to the retain prompts


class Probe(GradientMethod):
    """Descends the sum of whatever it asks for."""

    def __init__(self, options: ProbeOptions) -> None:
        self.options = options

    @property
    def needs(self) -> Needs:
        return NEEDS[self.options.asks]

    @property
    def retain_terms(self) -> tuple[RetainTerm, ...]:
        if self.options.refusals:
            return (RetainTerm("gap", lambda rows: rows.policy.total - rows.paired.total, nll=True, paired=True),)  # type: ignore[union-attr]
        return super().retain_terms

    def layers(self, depth: int) -> tuple[int, ...]:
        reads = Asks.states, Asks.compared_states, Asks.lens
        return self.options.read if self.options.asks in reads or self.options.retain is Retain.states else ()

    def trains(self, parameter: str, depth: int) -> bool:
        block, deepest, trained = block_of(parameter), max(self.options.read), self.options.trained
        if trained is Trains.down:
            return "down_proj" in parameter and block in (deepest - 2, deepest - 1)
        if trained is Trains.below:
            return block is not None and block < deepest
        return trained is Trains.all or "lm_head" in parameter or (block or 0) >= 1

    def losses(
        self, rows: ForgetRows, margin: Margin | None, step: Step
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seen = rows.policy
        found = [*seen.values.values(), *seen.states.values(), *seen.lens_nll.values()]  # type: ignore[union-attr]
        if self.needs.nll:
            found.append(seen.nll)  # type: ignore[union-attr]
        if rows.paired is not None:
            found += rows.paired.values.values()  # type: ignore[union-attr]
        losses = [one.square().sum() for one in found]
        losses += [
            (seen.states[layer] - reference).square().sum()  # type: ignore[union-attr]
            for layer, reference in rows.reference_states.items()
        ]
        return torch.stack(losses), {}


# Not registered: it would be a choice of the command line in all other tests of the process.
ENTRY = Entry("probe", ProbeOptions, Probe, "", "", "")
