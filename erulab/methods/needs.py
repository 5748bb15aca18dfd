"""What a method's loss on forget rows needs: which answers, which quantities of their forward, which step it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from erulab.methods.retain import Normalizer
from erulab.methods.seen import TokenValue


class Answer(Enum):
    """The answer to a forget prompt that a loss is computed on."""

    forget = "forget"  # the one to forget
    refusal = "refusal"  # a refusal; the forgotten answer is in no term


class Pairs(Enum):
    """The second answer that a forgotten answer is compared with; drawn by (seed, row id) where there are several."""

    none = "none"
    refusal = "refusal"
    alternative = "alternative"  # a wrong answer of the row
    fabricated = "fabricated"  # its made-up answer
    same_sentence = "same_sentence"  # the forgotten answer itself, with another value in its span


class ForgetTokens(Enum):
    """The tokens of the forgotten answers that count; the other tokens are in no term of the loss."""

    all = "all"
    span = "span"  # the words that a row marks as its fact
    surprising = "surprising"  # tokens that a model which never saw the facts does not expect


@dataclass(frozen=True)
class Alternatives:
    """The plausible wrong answers that the target is asked for, in place of those that a data set has."""

    count: int  # of each forget row
    temperature: float
    max_new_tokens: int
    template: str  # of the question, with {prompt} in it


@dataclass(frozen=True)
class Needs:
    """The quantities that a method's loss on forget rows reads. What no part of a step asks for is not computed."""

    answer: Answer = Answer.forget
    pairs: Pairs = Pairs.none
    generated: Alternatives | None = None  # with pairs=alternative: each pass over the rows takes another one
    normalizer: Normalizer = Normalizer.rows
    reward: bool = False
    nll: bool = True  # NLL of the answers with its gradient, in `Seen.nll`
    values: tuple[TokenValue, ...] = ()  # of the answer's tokens, in `Seen.values`
    states: bool = False  # states at `GradientMethod.layers`, in `Seen.states`
    reference_states: bool = False  # the same of the model before unlearning, in `ForgetRows.reference_states`
    lens: bool = False  # NLL of the answer as final norm and head read it off those layers, in `Seen.lens_nll`


@dataclass(frozen=True)
class Step:
    """An optimizer step, for schedules: `number` from 0, of `total`."""

    number: int
    total: int

    @property
    def share(self) -> float:
        """Returns the share of the training that is done: 0 in the first step, 1 in the last."""
        return self.number / max(self.total - 1, 1)
