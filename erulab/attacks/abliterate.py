"""Abliteration: what unlearning added to states at forget prompts is taken out of all that the weights write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab.adversaries.base import HookablePolicy
from erulab.adversaries.directions import difference_of_means, project_out, unit, wide
from erulab.adversaries.hooks import writers
from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Repeat, Setting, forget_suites
from erulab.attacks.halves import reported_half, validation_rows
from erulab.attacks.states.layers import check_layers, last_states, layers_of
from erulab.attacks.weights.linear_layers import output_first
from erulab.data.arrow_sequence import select_items
from erulab.registry import attacks

if TYPE_CHECKING:
    import torch
    from torch import nn

    from erulab.data.rows import Benchmark, Suite
    from erulab.models.loaded import LoadedModel
else:
    torch = lazy_loader.load("torch")

PROMPTS = 256  # at most, for a mean
# The last linear layer of attention and of an MLP: Llama, Qwen and Mistral; Phi; GPT-2.
LAST = ("o_proj", "down_proj", "dense", "fc2", "c_proj")


@dataclass
class AbliterateOptions:
    name: str = "abliterate"
    layers: Optional[list[int]] = None  # l of h_l, from 1 to L, whose direction is tried; null: all
    embedding: bool = False  # out of the embedding too; where it is tied, the head changes with it

    def __post_init__(self) -> None:
        check_layers(self.layers)


@attacks.register(
    "abliterate", AbliterateOptions, paper="Arditi et al. 2024, arXiv:2406.11717; on unlearning arXiv:2409.18025"
)
class Abliterate(Attack):
    """Projects the difference of means, this model minus the target, out of every write to the residual stream."""

    reads_target = True
    changes_weights = True

    def __init__(self, options: AbliterateOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        validation_rows(benchmark, seed)
        return [{"embedding": self.options.embedding}]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        suites = forget_suites(benchmark)
        # With one layer nothing is chosen, so that all that is scored is reported: not what the direction is made of.
        alone = self.options.layers is not None and len(self.options.layers) == 1
        return reported_half(suites, benchmark, repeat.seed) if alone else suites

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        layers = layers_of(subject, self.options.layers, "abliterate")
        for layer, direction in zip(layers, self._directions(subject, lab, layers), strict=True):
            changed = subject.copy()
            direction = direction.to(changed.policy.device)
            take_out(changed.policy, direction)
            if self.options.embedding:
                embedding = changed.model.get_input_embeddings()
                assert isinstance(embedding, torch.nn.Embedding)
                embedding.weight.detach().copy_(project_out(wide(embedding.weight.detach()), direction))
            yield Attempt({"layer": layer}, partial(lab.score, changed), changed)

    def _directions(self, subject: LoadedModel, lab: Lab, layers: list[int]) -> torch.Tensor:
        """(layers, width) of length 1, or zero where this model is the target.

        Raises:
            Inapplicable: the target reads other ids.
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


def take_out(policy: HookablePolicy, direction: torch.Tensor) -> None:
    """Makes every write of attention and MLPs orthogonal to the direction, by changing their last weights in place.

    Args:
        direction: (width,), of length 1, or zero for no change.
    Raises:
        TypeError: the blocks' layout is not known.
    """
    for writer in writers(policy):
        layer = _last(writer)
        weight = output_first(layer)
        assert weight is not None
        weight.copy_(project_out(wide(weight.T), direction).T)
        if isinstance(layer.bias, torch.Tensor):
            layer.bias.detach().copy_(project_out(wide(layer.bias.detach()), direction))


def _last(writer: nn.Module) -> nn.Module:
    for name, layer in writer.named_children():
        if name in LAST and output_first(layer) is not None:
            return layer
    raise TypeError(f"abliterate does not know {type(writer).__name__}: none of {', '.join(LAST)} is a linear layer")
