"""Quantisation: rounding the weights can undo a small update that had suppressed knowledge (Zhang et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Setting
from erulab.attacks.weights.linear_layers import rewrite_weights
from erulab.attacks.weights.quantizers import QUANTIZERS
from erulab.options import require
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark
    from erulab.models.loaded import LoadedModel


class Backend(Enum):
    """The library that rounds the weights."""

    rtn = "rtn"  # round-to-nearest with one scale per output channel; needs no library
    bitsandbytes = "bitsandbytes"  # int8 and nf4; must be installed
    torchao = "torchao"  # weight-only int8 and int4; must be installed


@dataclass
class QuantizeOptions:
    name: str = "quantize"
    bits: list[int] = field(default_factory=lambda: [8, 4])  # bits per weight; each is a setting
    backends: list[Backend] = field(default_factory=lambda: [Backend.rtn])  # what rounds the weights; each is a setting

    def __post_init__(self) -> None:
        require(bool(self.bits), "bits", "a list such as [8,4]", self.bits)
        for bits in self.bits:
            require(2 <= bits <= 8, "bits", "between 2 and 8", bits)
        require(bool(self.backends), "backends", "a list such as [rtn,torchao]", self.backends)
        if any(backend is not Backend.rtn for backend in self.backends):
            require({*self.bits} <= {8, 4}, "bits", "8 or 4 unless backends=[rtn]", self.bits)


@attacks.register("quantize", QuantizeOptions, paper="Zhang et al. 2024, arXiv:2410.16454")
class Quantize(Attack):
    """Rounds the weights of each linear layer except the output head: to nearest, or as a library does."""

    options_told_by_setting = ("bits", "backends")
    changes_weights = True

    def __init__(self, options: QuantizeOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        names = [backend.value for backend in self.options.backends]
        missing = [name for name in names if name != "rtn" and find_spec(name) is None]
        if missing:
            raise Inapplicable(
                f"attack.quantize.backends names {', '.join(missing)}, not installed here; type pip install "
                f"{' '.join(missing)}, or attack.quantize.backends=[rtn]"
            )
        # Another version of a library may round in another way, so the setting names the version.
        own: dict[str, Setting] = {name: {} if name == "rtn" else {"version": version(name)} for name in names}
        return [{"backend": name, "bits": bits, **own[name]} for name in names for bits in self.options.bits]

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        rounded = subject.copy()
        rewrite_weights(rounded, partial(QUANTIZERS[setting["backend"]], bits=setting["bits"]))
        yield Attempt({}, partial(lab.score, rounded), rounded)
