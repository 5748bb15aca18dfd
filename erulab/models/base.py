"""What a model source offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, Protocol

from erulab.tokens.templates import PromptOverrides

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark
    from erulab.models.loaded import LoadedModel
    from erulab.tokens.chat import ChatFormat


class ModelSource(Protocol):
    """Where base weights come from."""

    @property
    def folder(self) -> Optional[str]:
        """The folder or hub id that `load` reads, which engine=zero3 reads sharded; None where weights are made."""
        ...

    @property
    def frame(self) -> PromptOverrides:
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
