"""What a method asks of the rows of each kind, still without rows. Plans read it too: this module loads no torch."""

from __future__ import annotations

from erulab.methods.base import GradientMethod
from erulab.methods.needs import Answer, Pairs
from erulab.models.request import PartRequest


def forget_parts(method: GradientMethod) -> tuple[PartRequest, ...]:
    """Returns what is asked of the forget rows' answers, and of their paired answers where the method has pairs."""
    needs = method.needs
    answers = 1 if needs.answer is Answer.refusal or needs.pairs is Pairs.none else 2
    return tuple(
        PartRequest(
            nll=needs.nll,
            values=needs.values,
            states=needs.states,
            lens=needs.lens and place == 0,
            reference_states=needs.reference_states and place == 0,
        )
        for place in range(answers)
    )


def retain_parts(method: GradientMethod) -> tuple[PartRequest, ...]:
    """Returns what is asked of retain rows, and of refusals to their prompts; empty: no retain rows are run."""
    terms = method.retain_terms
    if not terms:
        return ()
    states = any(term.states for term in terms)
    return tuple(
        PartRequest(
            nll=any(term.nll for term in terms),
            values=tuple(value for term in terms for value in term.values),
            states=states and place == 0,
            reference_states=states and place == 0,
        )
        for place in range(2 if any(term.paired for term in terms) else 1)
    )
