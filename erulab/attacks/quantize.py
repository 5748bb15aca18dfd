"""Quantisation: rounding the weights can bring back what a small update had pushed aside (Zhang et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import lazy_loader

from erulab.attacks.base import Attempt, Lab, Repeat, Setting, forget_suites
from erulab.options import require
from erulab.registry import attacks

if TYPE_CHECKING:
    import torch

    from erulab.data.rows import Benchmark, Suite
    from erulab.models.loaded import LoadedModel
else:
    torch = lazy_loader.load("torch")


def round_to_nearest(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Symmetric round-to-nearest, one scale an output channel.

    Args:
        weight: (out, in); bits: 2 to 8.
    Returns:
        (out, in) the nearest of 2^bits - 1 levels; |weight - result| <= scale / 2, scale = max|row| / (2^(bits-1) - 1).
    """
    levels = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(1, keepdim=True) / levels
    # A channel of zeros has no scale and stays zero.
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (weight / safe).round().clamp(-levels, levels) * scale


@dataclass
class QuantizeOptions:
    name: str = "quantize"
    bits: list[int] = field(default_factory=lambda: [8, 4])

    def __post_init__(self) -> None:
        require(bool(self.bits), "bits", "a list such as [8,4]", self.bits)
        for bits in self.bits:
            require(2 <= bits <= 8, "bits", "between 2 and 8", bits)


@attacks.register("quantize", QuantizeOptions, paper="Zhang et al. 2024, arXiv:2410.16454")
class Quantize:
    """Per-channel round-to-nearest of every linear layer but the output head."""

    spans = ("bits",)
    repeats = 1
    reads_target = False
    changes_weights = True

    def __init__(self, options: QuantizeOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        return [{"bits": bits} for bits in self.options.bits]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        return forget_suites(benchmark)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        # Not at the top: this file is imported where torch must not be, and transformers cannot be loaded lazily.
        from transformers.pytorch_utils import Conv1D

        rounded = subject.copy()
        head = rounded.model.get_output_embeddings()
        with torch.no_grad():
            for module in rounded.model.modules():
                if isinstance(module, torch.nn.Linear) and module is not head:
                    module.weight.copy_(round_to_nearest(module.weight, setting["bits"]))
                elif isinstance(module, Conv1D):  # GPT-2's linear layer: weights are (in, out)
                    module.weight.copy_(round_to_nearest(module.weight.T, setting["bits"]).T)
        yield Attempt({}, partial(lab.score, rounded), rounded)
