"""The logit lens: the head applied to the states between two blocks (nostalgebraist 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Optional

from erulab.attacks.base import Attack, Attempt, Lab, Setting
from erulab.attacks.states.layers import check_layers, layers_of
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark
    from erulab.models.loaded import LoadedModel


@dataclass
class LogitLensOptions:
    name: str = "logit_lens"
    layers: Optional[list[int]] = None  # l of h_l, 1 to L; h_L gives the model's own answer; null: all

    def __post_init__(self) -> None:
        check_layers(self.layers)


@attacks.register("logit_lens", LogitLensOptions, paper="nostalgebraist 2020; Patil et al. 2023, arXiv:2309.17410")
class LogitLens(Attack):
    """Reads h_l through the final norm and the head, at the layer that the validation facts choose."""

    def __init__(self, options: LogitLensOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        return [{}]

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        for layer in layers_of(subject, self.options.layers, "logit_lens"):
            yield Attempt({"layer": layer}, partial(lab.score, subject.first_blocks(layer)))
