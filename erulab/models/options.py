"""Options that all model sources share."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Optional

from erulab.costs.shapes import Adapters
from erulab.options import require, require_not_negative, require_positive


class Attention(Enum):
    eager = "eager"
    sdpa = "sdpa"
    flash_attention_2 = "flash_attention_2"


class Quantization(Enum):
    none = "none"
    nf4 = "nf4"  # QLoRA: 4 bits per weight of the blocks' linear layers; needs bitsandbytes


@dataclass
class LoraOptions:
    """Unlearning trains adapters instead of all weights; learning the target never does."""

    rank: int = 0  # 0: all weights
    alpha: int = 16  # adapters are scaled by alpha / rank
    targets: Optional[list[str]] = None  # names of a block's linear layers, such as q_proj; null: all of them
    quantize: Quantization = Quantization.none  # how the frozen weights under the adapters are held while they train

    @property
    def adapters(self) -> Adapters:
        """The adapters' size, for costs."""
        return Adapters(self.rank, tuple(self.targets or ()))

    def __post_init__(self) -> None:
        require_not_negative("lora.rank", self.rank)
        require_positive("lora.alpha", self.alpha)
        require(self.targets != [], "lora.targets", "null for all linear layers, or names of some", self.targets)


@dataclass
class ModelOptions:
    path: Optional[str] = None  # folder or hub id of the base weights
    target: Optional[str] = None  # folder or hub id of a model that knows the forget set; null: it is learned
    # folder or hub id of a model that never saw the forget set, or a list of several; null: it is learned
    oracle: Any = None
    unlearned: Optional[str] = None  # folder or hub id of an unlearned model that is only scored; null: it is made
    attention: Attention = Attention.sdpa  # transformers' implementation; sdpa runs packed rows where it can
    lora: LoraOptions = field(default_factory=LoraOptions)

    def __post_init__(self) -> None:
        given = self.oracle if isinstance(self.oracle, list) else [self.oracle]
        allowed = "null, a folder or hub id, or a list of them"
        named = self.oracle is None or (bool(given) and all(isinstance(one, str) and one for one in given))
        require(named, "oracle", allowed, self.oracle)
        different = len({Path(str(one)) for one in given}) == len(given)
        require(different, "oracle", "a list of different models", self.oracle)
        # A list of one is the same run as its only item, with the same folder.
        self.oracle = self.oracle if len(given) > 1 else given[0]

    @property
    def oracles(self) -> list[str]:
        """The folders or hub ids of the given oracles; empty if they are learned."""
        given = self.oracle if isinstance(self.oracle, list) else [self.oracle]
        return [one for one in given if one is not None]
