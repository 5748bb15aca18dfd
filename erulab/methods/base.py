"""The interface of a method: what it needs, what its losses are given, and the options that methods share.

Notation of this package, of rewards/ and of adversaries/:

    s       = -sum_t log p(y_t | x, y_<t)   NLL of a response under the policy, in nats, over its T supervised tokens
    l       = s / T                         the same per token
    s_ref, l_ref                            the same under the reference: the model before unlearning, never perturbed
    h_l     (width,)                        state of one token: the input of block l; h_L is the input of the final norm
    sg[...]                                 the value without gradient

A method that descends a loss on forget rows (`GradientMethod`) minimises

    L = forget_weight * L_forget + retain_weight * L_retain

with L_retain by `method.retain` (retain.py), where all sums and counts run over the global batch, whatever its
micro-batches and processes. Other methods make the unlearned model in another way (`Method.unlearn`), or take a model
that is there (`StandIn`).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from erulab.methods.retain import RETAIN_TERMS, Normalizer, Retain, RetainTerm
from erulab.methods.seen import ForgetRows, TokenValue
from erulab.options import require, require_not_negative, require_positive
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


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
class Needs:
    """The quantities that a method's loss on forget rows reads. What no part of a step asks for is not computed."""

    answer: Answer = Answer.forget
    pairs: Pairs = Pairs.none
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


# (x_ref, depth) -> margin: reference quantity and its change since the start, (rows,) each; see rewards/.
Margin = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


class ModelHandle(Protocol):
    """A model on disk."""

    @property
    def key(self) -> str: ...

    @property
    def path(self) -> str: ...


class UnlearningLab(Protocol):
    """The tools with which a method makes the unlearned model of one request; `erulab/stages/lab.py` has them."""

    @property
    def target(self) -> ModelHandle:
        """Returns the model that unlearning starts from."""
        ...

    def descend(self, method: GradientMethod) -> None:
        """Trains the target on the method's loss; the result is the unlearned model."""
        ...


@runtime_checkable
class StandIn(Protocol):
    """A registered method for which a model that is there already stands: `none` and `retrain`."""

    stands_for: str  # role of that model: "target" or "oracle"


class Method(Protocol):
    """A registered method that makes a new model."""

    def unlearn(self, lab: UnlearningLab) -> None:
        """Makes the unlearned model with the lab's tools."""
        ...


class GradientMethod(ABC):
    """A method that descends a loss on forget rows.

    The training loop sums `losses` over the global batch and divides the sum by `needs.normalizer`: that is L_forget.
    """

    options: Any  # MethodOptions
    seed: int = 0  # of draws; 0 when built, set to the run's seed before training

    def __init__(self, options: Any) -> None:
        self.options = options

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """Returns what `losses` reads, made from the options."""

    @property
    def retain_terms(self) -> tuple[RetainTerm, ...]:
        """Returns the terms whose sum is L_retain; empty: no retain rows are run."""
        return RETAIN_TERMS[self.options.retain]

    @abstractmethod
    def losses(
        self, rows: ForgetRows, margin: Margin | None, step: Step
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes the losses of one micro-batch.

        Args:
            rows: the forget rows of the micro-batch.
            margin: the reward's margin; None where `needs.reward` is false.
            step: the optimizer step.
        Returns:
            (rows,) losses in nats, to be summed; and (rows,) quantities, logged as means over the rows.
        """

    def layers(self, depth: int) -> tuple[int, ...]:
        """Returns the layers l whose states h_l the method reads, for a model of `depth` blocks; 0 <= l <= depth.

        Raises:
            ValueError: an option names a layer beyond the depth; says which are allowed.
        """
        return ()

    def trains(self, parameter: str, depth: int) -> bool:
        """Tells whether a parameter is trained.

        Args:
            parameter: its name in the model, such as "model.layers.7.mlp.down_proj.weight"; with LoRA, the name of an
                adapter's weight, which contains the name of the layer that it is on.
            depth: blocks of the model.
        """
        return True

    def weights(self, step: Step) -> tuple[float, float]:
        """Returns the factors of L_forget and L_retain in a step."""
        return self.options.forget_weight, self.options.retain_weight

    def end_step(self, metrics: Mapping[str, float], step: Step) -> dict[str, float]:
        """Updates the method's own state after the last micro-batch; returns more metrics.

        Args:
            metrics: of the whole global batch, equal on all ranks: `forget_loss`, `retain_loss`, `method/...`.
        """
        return {}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Returns what a resumed training needs of the method's own state."""
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restores what `state_dict` returned."""
        assert not state, f"{type(self).__name__} keeps no state"

    def unlearn(self, lab: UnlearningLab) -> None:
        lab.descend(self)


def gradient_method(options: Any) -> GradientMethod | None:
    """Returns the method of these options if it descends a loss on forget rows, otherwise None."""
    built = methods.build(options)
    return built if isinstance(built, GradientMethod) else None


def forget_tokens_of(options: Any) -> ForgetTokens:
    """Returns the tokens of the forgotten answers that count: all of them for a method whose options do not say."""
    return options.forget_tokens if isinstance(options, MethodOptions) else ForgetTokens.all


def block_of(parameter: str) -> int | None:
    """Returns the index of the block that a parameter is in, by its name; None outside of the blocks."""
    found = re.search(r"\.(?:layers|h)\.(\d+)\.", parameter)
    return None if found is None else int(found[1])


def state_after_block(option: str, block: int | None, depth: int, share: float) -> int:
    """Returns the layer whose state is the output of a block, counted as papers count: "layer 7" is h_8.

    Args:
        option: name of the option, for the message.
        block: its value; None: the state at `share` of the depth, at least h_1.
        depth: blocks of the model.
    Raises:
        ValueError: the model has no such block.
    """
    if block is None:
        return max(1, round(share * depth))
    require(0 <= block < depth, option, f"a block of the model, 0 to {depth - 1}", block)
    return block + 1
