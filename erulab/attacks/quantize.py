"""Quantisation: rounding the weights can undo a small update that had suppressed knowledge (Zhang et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import zip_longest
from typing import TYPE_CHECKING

from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Setting
from erulab.attacks.weights.linear_layers import linear_weights, rewrite_weights
from erulab.attacks.weights.quantizers import QUANTIZERS, nearest_codes
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


# Share of changed codes above which rounding cannot have undone the unlearning: what it undoes are changes that are too
# small to reach another code.
INFORMATIVE = 0.5


@attacks.register("quantize", QuantizeOptions, paper="Zhang et al. 2024, arXiv:2410.16454")
class Quantize(Attack):
    """Rounds the weights of each linear layer and expert except the output head: to nearest, or as a library does.

    A remark says how many of the rounded weights (codes) differ from the target's, where they are rounded to nearest.
    """

    options_told_by_setting = ("bits", "backends")
    changes_weights = True
    reads_target = True  # the remark

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
        changed = _changed_codes(subject, lab.target, setting["bits"]) if setting["backend"] == "rtn" else None
        rounded = subject.copy()
        left = rewrite_weights(rounded, partial(QUANTIZERS[setting["backend"]], bits=setting["bits"]))
        yield Attempt({}, partial(lab.score, rounded), rounded, remark=_remark(changed), left_alone=left)


def _changed_codes(subject: LoadedModel, target: LoadedModel, bits: int) -> float | None:
    """Returns the share of codes in which two models differ after rounding to nearest; None if their layouts differ."""
    pairs = list(zip_longest(linear_weights(subject), linear_weights(target)))
    if any(one is None or other is None or one.shape != other.shape for one, other in pairs):
        return None
    changed = sum(int((nearest_codes(one, bits)[0] != nearest_codes(other, bits)[0]).sum()) for one, other in pairs)
    return changed / sum(one.numel() for one, _ in pairs)


def _remark(changed: float | None) -> str:
    if changed is None:
        return ""
    told = f"{changed:.1%} of the codes differ from the target's"
    return f"not informative: {told}, so rounding could undo little" if changed > INFORMATIVE else told
