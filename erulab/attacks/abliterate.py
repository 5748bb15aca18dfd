"""Abliteration: removes a direction from everything that the weights write to the residual stream.

The direction is the one in which unlearning moved the states at forget prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab.adversaries.base import HookablePolicy
from erulab.adversaries.directions import at_least_float32, difference_of_means, project_out, unit
from erulab.adversaries.hooks import residual_writers
from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Repeat, Setting
from erulab.attacks.halves import reported_half, validation_rows
from erulab.attacks.states.layers import check_layers, last_states, layers_of
from erulab.attacks.weights.linear_layers import expert_weights, output_first
from erulab.data.arrow_sequence import select_items
from erulab.evaluation.suites import forget_suites
from erulab.registry import attacks

if TYPE_CHECKING:
    import torch
    from torch import nn

    from erulab.data.rows import Benchmark, Suite
    from erulab.models.loaded import LoadedModel
else:
    torch = lazy_loader.load("torch")

PROMPTS = 256  # at most this many prompts per mean
# Names of the last linear layer of attention and of an MLP in Llama, Qwen and Mistral; Phi; GPT-2; Qwen 3.5.
LAST = ("o_proj", "down_proj", "dense", "fc2", "c_proj", "out_proj")


@dataclass
class AbliterateOptions:
    name: str = "abliterate"
    layers: Optional[list[int]] = None  # l of h_l, 1 to L, whose direction is tried; null: all
    embedding: bool = False  # also removes the direction from the embedding; a tied head changes with it

    def __post_init__(self) -> None:
        check_layers(self.layers)


@attacks.register(
    "abliterate", AbliterateOptions, paper="Arditi et al. 2024, arXiv:2406.11717; on unlearning arXiv:2409.18025"
)
class Abliterate(Attack):
    """Projects the difference of mean states (this model minus the target) out of all writes to the residual stream."""

    reads_target = True
    changes_weights = True

    def __init__(self, options: AbliterateOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        validation_rows(benchmark, seed)
        return [{"embedding": self.options.embedding}]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        suites = forget_suites(benchmark)
        # With one layer nothing is chosen, and every scored row is reported. The direction is computed from validation
        # rows, so these are left out.
        alone = self.options.layers is not None and len(self.options.layers) == 1
        return reported_half(suites, benchmark, repeat.seed) if alone else suites

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        layers = layers_of(subject, self.options.layers, "abliterate")
        for layer, direction in zip(layers, self._unit_directions(subject, lab, layers), strict=True):
            changed = subject.copy()
            direction = direction.to(changed.policy.device)
            try:
                remove_direction(changed.policy, direction)
            except TypeError as why:
                raise Inapplicable(str(why)) from why
            if self.options.embedding:
                embedding = changed.model.get_input_embeddings()
                assert isinstance(embedding, torch.nn.Embedding)
                embedding.weight.detach().copy_(project_out(at_least_float32(embedding.weight.detach()), direction))
            yield Attempt({"layer": layer}, partial(lab.score, changed), changed)

    def _unit_directions(self, subject: LoadedModel, lab: Lab, layers: list[int]) -> torch.Tensor:
        """Returns one direction per layer, (layers, width): of length 1, or zero if this model is the target.

        Raises:
            Inapplicable: the target has another tokenizer.
        """
        if subject.chat.identity() != lab.target.chat.identity():
            raise Inapplicable("abliteration compares states at the same ids, and the target has another tokenizer")
        rows = validation_rows(lab.benchmark, lab.repeat.seed)
        order = sorted(range(len(rows)), key=lambda i: lab.repeat.seed_of("abliterate", rows[i].id))
        encoded = [
            subject.chat.encode(row, max_length=lab.benchmark.max_length) for row in select_items(rows, order[:PROMPTS])
        ]
        states = torch.cat([last_states(model, encoded, layers) for model in (subject, lab.target)])
        return unit(difference_of_means(states, len(encoded)))


def remove_direction(policy: HookablePolicy, direction: torch.Tensor) -> None:
    """Makes every write of attention and MLPs orthogonal to the direction by changing their last weights in place.

    Args:
        direction: (width,) of length 1, or zero for no change.
    Raises:
        TypeError: the layout of the blocks is not known.
    """
    for writer in residual_writers(policy):
        for weight, bias in _last_weights(writer):
            weight.copy_(project_out(at_least_float32(weight.T), direction).T)
            if bias is not None:
                bias.detach().copy_(project_out(at_least_float32(bias.detach()), direction))


def _last_weights(writer: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Returns the (out, in) weight and the bias of a writer's last linear layer, or of each expert's in a mixture."""
    parts = dict(writer.named_children())
    for name in parts.keys() & set(LAST):
        weight = output_first(parts[name])
        if weight is not None:
            bias = parts[name].bias
            return [(weight, bias if isinstance(bias, torch.Tensor) else None)]
    # Experts alone write: a shared expert beside them, or biases, would be left out.
    if parts.keys() == {"gate", "experts"} and not parts["experts"].has_bias:
        return [(one, None) for one in expert_weights(parts["experts"], "down_proj")]
    raise TypeError(f"abliterate does not know {type(writer).__name__}: none of {', '.join(LAST)} is a linear layer")
