"""What a model source offers, and the options all sources share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Optional, Protocol

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark
    from erulab.models.chat import ChatFormat
    from erulab.models.loaded import LoadedModel


class Attention(Enum):
    eager = "eager"
    sdpa = "sdpa"
    flash_attention_2 = "flash_attention_2"


@dataclass
class ModelOptions:
    """`path`: weights that training starts from. `target`, `oracle`, `unlearned`: a folder or hub id that
    replaces that stage's product."""

    path: Optional[str] = None
    target: Optional[str] = None
    oracle: Optional[str] = None
    unlearned: Optional[str] = None
    attention: Attention = Attention.sdpa


class ModelSource(Protocol):
    """Where base weights come from."""

    @property
    def folder(self) -> Optional[str]:
        """The folder or hub id that `load` reads, which engine=zero3 reads sharded; None where weights are made."""
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

    def identity(self, benchmark: Benchmark) -> dict[str, Any]:
        """What the base weights, tokenizer and template depend on, by content (never a path): part of stage keys."""
        ...

    def load(self, benchmark: Benchmark, seed: int) -> LoadedModel:
        """The base model in float32 on the CPU, with tokenizer and chat format. `seed` only where weights are random.

        Raises:
            EnvironmentFault: weights or a package are missing; IntegrityFault: unsafe to load; DataError: unusable.
        """
        ...
