"""What a method is given, what it returns, and the options all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from erulab.options import not_negative

if TYPE_CHECKING:
    import torch


class Retain(Enum):
    none = "none"
    nll = "nll"
    kl = "kl"


class Trains(Enum):
    """Which rows a method's unlearning runs on."""

    forget = "forget"  # forget rows, with retain rows beside them
    refusal = "refusal"  # forget prompts answered by a refusal
    retrain = "retrain"  # no unlearning: the base model fine-tuned on retain only
    nothing = "nothing"  # the target as it is


class Pairs(Enum):
    """The other answer a forgotten answer is compared with."""

    none = "none"
    refusal = "refusal"
    alternative = "alternative"  # a wrong answer of the row, drawn by (seed, row id)
    fabricated = "fabricated"  # the row's made-up answer


class Normalizer(Enum):
    """What the sum of a method's losses over the global batch is divided by."""

    tokens = "tokens"
    rows = "rows"


@dataclass
class MethodOptions:
    """Fields of every method that trains on forget rows."""

    forget_weight: float = 1.0
    retain: Retain = Retain.nll
    retain_weight: float = 1.0

    def __post_init__(self) -> None:
        not_negative("forget_weight", self.forget_weight)
        not_negative("retain_weight", self.retain_weight)


@dataclass(frozen=True)
class RowNLL:
    """NLL of some rows' responses: `total` (rows,) in nats, `tokens` (rows,) supervised tokens."""

    total: torch.Tensor
    tokens: torch.Tensor

    @property
    def mean(self) -> torch.Tensor:
        """(rows,) per-token NLL."""
        return self.total / self.tokens


@dataclass(frozen=True)
class ForgetRows:
    """The forget side of one micro-batch, as a loss sees it. Reference values carry no gradient."""

    policy: RowNLL  # of the forget response, or of the refusal for a method that trains on refusals
    reference: RowNLL | None = None  # the same rows under the model before unlearning
    paired: RowNLL | None = None  # of the paired answer
    paired_reference: RowNLL | None = None


# (x_ref, depth) -> margin: reference quantity and its change since the start, (rows,) each; see rewards/.
Margin = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


class Method(Protocol):
    """A loss on forget rows. The training loop sums `losses` over the global batch and divides by `normalizer`."""

    trains: Trains
    normalizer: Normalizer
    pairs: Pairs
    takes_reward: bool

    def losses(self, rows: ForgetRows, margin: Margin | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(rows,) losses to be summed, and (rows,) quantities to be logged as means over rows."""
        ...
