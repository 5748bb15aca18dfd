"""What the forwards of an unlearning run, derived from its method's needs without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from erulab.adversaries.relearning import InnerOptimizer, RelearningOptions
from erulab.adversaries.sam import SAMOptions
from erulab.adversaries.weights import WeightAdversary
from erulab.costs.flops import TokenCounts
from erulab.costs.gradient_copies import GradientCopies
from erulab.costs.passes import Pass
from erulab.costs.shapes import ModelShape
from erulab.costs.trained import weight_shapes
from erulab.methods.base import GradientMethod, gradient_method
from erulab.methods.needs import Answer, Pairs
from erulab.models.request import ForwardRequest
from erulab.options import Combine, RunConfig
from erulab.planning.micro import ExpectedMicroBatch, RowGroup
from erulab.planning.rows import DataSizes
from erulab.registry import adversaries
from erulab.training.requests import forget_parts, retain_parts


@dataclass(frozen=True)
class ForwardKind:
    """One kind of forward in each step: its groups of rows, and what is asked of each kind of rows in them."""

    groups: tuple[RowGroup, ...]
    request: ForwardRequest

    def expected_pass(self, micro: ExpectedMicroBatch) -> Pass:
        """Counts what the forward of one micro-batch computes."""
        asked = list(zip(self.request.parts, micro.parts, strict=True))
        rows = [replace(counts, supervised=counts.supervised * part.head_passes) for part, counts in asked]
        read = sum(counts.supervised for part, counts in asked if part.lens)
        compared = [
            counts if part.reads_reference_values else replace(counts, supervised=0.0)
            for part, counts in asked
            if part.reads_reference
        ]
        return Pass(
            reduce(add, rows),
            self.request.last_layer,
            {layer: read for layer in self.request.layers} if read else {},
            reduce(add, compared, TokenCounts()),
            self.request.last_reference_layer if compared else None,
        )


def forward_kinds(config: RunConfig, sizes: DataSizes, layers: int) -> tuple[ForwardKind, ...]:
    """Returns the kinds of forwards in a step of a method that descends a loss; that of forget rows comes first.

    Args:
        layers: blocks of the model.
    """
    method = descending_method(config)
    size, read = config.trainer.global_batch, method.layers(layers)
    forget, retain = forget_parts(method), retain_parts(method)
    answers = [sizes.paired if method.needs.answer is Answer.refusal else sizes.forget, sizes.paired]
    kept = [sizes.retain, sizes.retain_paired]
    kinds = [(RowGroup(tuple(answers[: len(forget)]), size), forget)]
    if retain:
        rows = round(size * config.trainer.retain_ratio)
        kinds.append((RowGroup(tuple(kept[: len(retain)]), rows), retain))
    if takes_gradients_apart(config):
        return tuple(ForwardKind((group,), ForwardRequest(parts, read)) for group, parts in kinds)
    request = ForwardRequest(tuple(part for _, parts in kinds for part in parts), read)
    return (ForwardKind(tuple(group for group, _ in kinds), request),)


def descending_method(config: RunConfig) -> GradientMethod:
    """Returns the run's method, which descends a loss on forget rows."""
    method = gradient_method(config.method)
    assert method is not None
    return method


def takes_gradients_apart(config: RunConfig) -> bool:
    """Tells whether forget and retain rows run in forwards of their own."""
    return config.trainer.combine is not Combine.sum or moves_weights(config)


def moves_weights(config: RunConfig) -> bool:
    """Tells whether the adversary takes the forget gradient at weights of its choice."""
    adversary = adversaries.build(config.adversary)
    return isinstance(adversary, WeightAdversary) and adversary.moves


def relearned_rows(config: RunConfig, sizes: DataSizes) -> RowGroup | None:
    """Returns the rows of one simulated relearning step, if the adversary relearns: forget rows that a step leaves out.

    Each row is taken for a fact of its own.
    """
    adversary = config.adversary
    if not isinstance(adversary, RelearningOptions) or not adversary.steps:
        return None
    size, rows = config.trainer.global_batch, sizes.forget.rows
    return RowGroup((sizes.forget,), min(size, rows - size if rows > size else rows))


def gradient_copies(config: RunConfig) -> tuple[GradientCopies, GradientCopies]:
    """Returns what is held while forget rows and while retain rows run, where their gradients are taken apart."""
    rule, adversary = config.trainer.combine.value, config.adversary
    lists, weights = 1, int(moves_weights(config))
    if isinstance(adversary, SAMOptions):
        lists += weights  # the first gradient
    if isinstance(adversary, RelearningOptions) and weights:
        # The last update of the weights, Adam's moments, and the sum of earlier forget gradients.
        moments = 2 if adversary.optimizer is InnerOptimizer.adamw else 0
        lists += 1 + moments + min(adversary.steps // adversary.every - 1, 2)
    return GradientCopies.of_forget_rows(rule, lists, weights), GradientCopies.of_retain_rows(rule)


def compared_answers(config: RunConfig) -> Pairs:
    """Returns the second answers that the reference table holds beside those to forget."""
    method = gradient_method(config.method)
    return Pairs.none if method is None or method.needs.answer is Answer.refusal else method.needs.pairs


def second_answers(config: RunConfig) -> Pairs:
    """Returns the answers to forget prompts that are run beside the forgotten ones, or in their place."""
    method = gradient_method(config.method)
    if method is None:
        return Pairs.none
    return Pairs.refusal if method.needs.answer is Answer.refusal else method.needs.pairs


def trained_names(config: RunConfig, shape: ModelShape) -> tuple[str, ...]:
    """Lists the weights that unlearning trains."""
    method = descending_method(config)
    shapes = weight_shapes(shape, config.model.lora.adapters)
    return tuple(name for name in shapes if method.trains(name, shape.layers))
