"""The interface of a method, what its loss is given, and the options that methods share.

Notation of this package, of rewards/ and of adversaries/:

    s       = -sum_t log p(y_t | x, y_<t)   NLL of a response under the policy, in nats, over its T supervised tokens
    l       = s / T                         the same per token
    s_ref, l_ref                            the same under the reference: the model before unlearning, never perturbed
    sg[...]                                 the value without gradient

Every method that trains on forget rows minimises

    L = forget_weight * L_forget + retain_weight * L_retain

    L_retain = 0                                                                          (retain=none)
             = sum over retain rows of s / sum over retain rows of T                      (retain=nll)
             = sum over their supervised tokens of KL(p_ref || p) / sum over rows of T    (retain=kl)

where all sums run over the global batch, whatever its micro-batches and processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from erulab.options import require_not_negative, require_positive

if TYPE_CHECKING:
    import torch


class Retain(Enum):
    """The term on retain rows: see the module's formula."""

    none = "none"
    nll = "nll"  # NLL of retain rows
    kl = "kl"  # KL to the model before unlearning


class Trains(Enum):
    """The rows that a method trains on."""

    forget = "forget"  # forget rows, with retain rows beside them
    refusal = "refusal"  # forget prompts answered by a refusal, with retain rows beside them
    retrain = "retrain"  # no unlearning: the base model fine-tuned on retain rows only
    nothing = "nothing"  # no training: the target as it is

    @property
    def has_forget_loss(self) -> bool:
        """Whether the method descends a loss on forget rows, that is, whether it is a `GradientMethod`."""
        return self in (Trains.forget, Trains.refusal)


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


class Normalizer(Enum):
    """The count over the global batch that the sum of a method's losses is divided by."""

    tokens = "tokens"  # supervised tokens of the forget responses (or of the refusals)
    rows = "rows"  # forget rows


@dataclass
class MethodOptions:
    """Options of every method that trains on forget rows."""

    forget_weight: float = 1.0  # factor of the loss on forget rows
    retain: Retain = Retain.nll  # term on retain rows
    retain_weight: float = 1.0  # factor of that term
    forget_tokens: ForgetTokens = ForgetTokens.all  # the tokens of the forgotten answers that count
    surprise: float = 1.0  # nats that a token's NLL must exceed to be surprising, under the oracle or the base model

    def __post_init__(self) -> None:
        require_not_negative("forget_weight", self.forget_weight)
        require_not_negative("retain_weight", self.retain_weight)
        require_positive("surprise", self.surprise)


@dataclass(frozen=True)
class RowNLL:
    """NLL of the responses of some rows: `total` (rows,) in nats, `tokens` (rows,) supervised tokens."""

    total: torch.Tensor
    tokens: torch.Tensor

    @property
    def mean(self) -> torch.Tensor:
        """Returns (rows,) NLL in nats per token."""
        return self.total / self.tokens


@dataclass(frozen=True)
class ForgetRows:
    """The forget rows of one micro-batch as a loss sees them. Reference values carry no gradient."""

    policy: RowNLL  # of the forget response, or of the refusal for a method that trains on refusals
    reference: RowNLL | None = None  # the same rows under the model before unlearning
    paired: RowNLL | None = None  # of the paired answer
    paired_reference: RowNLL | None = None


# (x_ref, depth) -> margin: reference quantity and its change since the start, (rows,) each; see rewards/.
Margin = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


class Method(Protocol):
    """A registered method. `retrain` and `none` state no more than this: they have no loss on forget rows."""

    trains: Trains
    takes_reward: bool


class GradientMethod(Method, Protocol):
    """A method that descends a loss on forget rows: one whose `trains.has_forget_loss` is true.

    The training loop sums `losses` over the global batch and divides the sum by `normalizer`: that is L_forget.
    """

    normalizer: Normalizer
    pairs: Pairs

    def losses(self, rows: ForgetRows, margin: Margin | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes the losses of one micro-batch.

        Args:
            rows: the forget rows of the micro-batch.
            margin: the reward's margin; None where `takes_reward` is false.
        Returns:
            (rows,) losses in nats, to be summed; and (rows,) quantities, logged as means over the rows.
        """
        ...
