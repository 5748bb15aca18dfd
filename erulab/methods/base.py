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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from erulab.methods.needs import ForgetTokens, Needs, Step
from erulab.methods.retain import RETAIN_TERMS, Retain, RetainTerm
from erulab.methods.seen import ForgetRows
from erulab.options import require, require_not_negative, require_positive
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


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


# (name, that weight in each of several models, float32 on the CPU) -> the weight of a new model. A weight that two
# layers share comes once.
WeightFunction = Callable[[str, "Sequence[torch.Tensor]"], "torch.Tensor"]


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

    def finetune_on_forget_rows(self) -> ModelHandle:
        """Returns the target fine-tuned on the responses to forget, by the run's trainer options.

        It is a product of its own: methods that differ in what they do with it cost one training.
        """
        ...

    def unlearned_by(self, options: Any) -> ModelHandle:
        """Returns the model that another method makes of the same request: the product of a run with that method.

        Args:
            options: of that method.
        """
        ...

    @property
    def seed(self) -> int:
        """Returns the run's seed, for draws."""
        ...

    def distil(self, teacher: ModelHandle, *, lr: float | None, steps: int | None) -> None:
        """Trains the model that `write` wrote towards another model: on their KL on the retain rows.

        Args:
            teacher: kept frozen.
            lr: learning rate; None: the trainer's.
            steps: optimizer steps; None: as many as the trainer takes.
        """
        ...

    def write(self, models: Sequence[ModelHandle], weight: WeightFunction) -> None:
        """Writes the unlearned model, made of the weights of other models with the target's layout.

        Args:
            models: at least one; the result has the tokenizer of the first.
            weight: computes each weight.
        """
        ...


@runtime_checkable
class StandIn(Protocol):
    """A registered method for which a model that is there already stands: `none` and `retrain`."""

    stands_for: str  # role of that model: "target" or "oracle"


@runtime_checkable
class FollowUp(Protocol):
    """A registered method that goes on from the model that another method makes."""

    first: Any  # options of that method
    retain_steps: int | None  # steps of its own on retain rows; None: as many as the first method's

    def unlearn(self, lab: UnlearningLab) -> None: ...


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


def forgetting_options(options: Any) -> Any:
    """Returns the options of the method that works on the forget rows: those of `first` for a method that follows."""
    built = methods.build(options)
    return built.first if isinstance(built, FollowUp) else options


def gradient_method(options: Any) -> GradientMethod | None:
    """Returns the method of these options if it descends a loss on forget rows, otherwise None.

    Of a method that goes on from another one's model, it is that other method.
    """
    built = methods.build(forgetting_options(options))
    return built if isinstance(built, GradientMethod) else None


def forget_tokens_of(options: Any) -> ForgetTokens:
    """Returns the tokens of the forgotten answers that count: all of them for a method whose options do not say."""
    options = forgetting_options(options)
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
