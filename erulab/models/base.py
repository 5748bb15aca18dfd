"""What a model source offers, and the options all sources share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Optional, Protocol

from erulab.costs.shapes import Adapters
from erulab.models.templates import Frame
from erulab.options import not_negative, positive, require

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark
    from erulab.models.chat import ChatFormat
    from erulab.models.loaded import LoadedModel


class Attention(Enum):
    eager = "eager"
    sdpa = "sdpa"
    flash_attention_2 = "flash_attention_2"


@dataclass
class LoraOptions:
    """Unlearning trains adapters instead of all weights; learning the target never does."""

    rank: int = 0  # 0: all weights
    alpha: int = 16  # adapters are scaled by alpha / rank
    targets: Optional[list[str]] = None  # names of a block's linear layers, such as q_proj; null: all of them

    @property
    def adapters(self) -> Adapters:
        """What costs go by."""
        return Adapters(self.rank, tuple(self.targets or ()))

    def __post_init__(self) -> None:
        not_negative("rank", self.rank)
        positive("alpha", self.alpha)
        require(self.targets != [], "targets", "null for all linear layers, or names of some", self.targets)


@dataclass
class ModelOptions:
    """`path`: weights that training starts from. `target`, `oracle`, `unlearned`: a folder or hub id that
    replaces that stage's product."""

    path: Optional[str] = None
    target: Optional[str] = None
    oracle: Optional[str] = None
    unlearned: Optional[str] = None
    attention: Attention = Attention.sdpa
    lora: LoraOptions = field(default_factory=LoraOptions)


class ModelSource(Protocol):
    """Where base weights come from."""

    @property
    def folder(self) -> Optional[str]:
        """The folder or hub id that `load` reads, which engine=zero3 reads sharded; None where weights are made."""
        ...

    @property
    def frame(self) -> Frame:
        """What is put around prompts in place of the tokenizer's own template, in every model of the run."""
        ...

    def validate(self) -> None:
        """Cheap checks at composition time, without torch.

        Raises:
            ConfigError, EnvironmentFault: one line each.
        """
        ...

    def chat(self, benchmark: Benchmark) -> ChatFormat:
        """The chat format alone, without weights."""
        ...

    def architecture(self, benchmark: Benchmark | None) -> Mapping[str, Any]:
        """The model's sizes in the words of a config.json, without weights, torch or network: what costs go by.

        Args:
            benchmark: None where its files are not on this machine.
        Raises:
            ConfigError: not known without the network; EnvironmentFault, DataError: no usable config.json.
        """
        ...

    def identity(self, benchmark: Benchmark) -> dict[str, Any]:
        """What the base weights, tokenizer and template depend on, by content (never a path): part of stage keys."""
        ...

    def load(self, benchmark: Benchmark, seed: int) -> LoadedModel:
        """The base model in float32 on the CPU, with tokenizer and chat format. `seed` only where weights are random.

        Raises:
            EnvironmentFault: weights or a package are missing; IntegrityFault: unsafe to load; DataError: unusable.
        """
        ...
