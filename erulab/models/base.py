"""The protocol of a model source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, Protocol

from erulab.tokens.templates import PromptOverrides

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark
    from erulab.models.loaded import LoadedModel
    from erulab.tokens.chat import ChatFormat


class ModelSource(Protocol):
    """A source of base weights, with their tokenizer and chat format."""

    @property
    def folder(self) -> Optional[str]:
        """The folder or hub id that `load` reads, and engine=zero3 reads sharded; None if weights are made in place."""
        ...

    @property
    def overrides(self) -> PromptOverrides:
        """The chat template and system turn of every model of the run, in place of the tokenizer's own."""
        ...

    def validate(self) -> None:
        """Checks the options cheaply at composition time, without torch.

        Raises:
            ConfigError, EnvironmentFault: one line each.
        """
        ...

    def chat(self, benchmark: Benchmark) -> ChatFormat:
        """Returns the chat format without loading weights."""
        ...

    def architecture(self, benchmark: Benchmark | None) -> Mapping[str, Any]:
        """Returns the model's sizes under the keys of a config.json, for costs; needs no weights, torch or network.

        Args:
            benchmark: None if its files are not on this machine.
        Raises:
            ConfigError: the sizes are not known without the network.
            EnvironmentFault, DataError: there is no usable config.json.
        """
        ...

    def identity(self, benchmark: Benchmark) -> dict[str, Any]:
        """Returns what weights, tokenizer and template depend on, by content and never by a path, for cache keys."""
        ...

    def load(self, benchmark: Benchmark, seed: int) -> LoadedModel:
        """Loads the base model in float32 on the CPU, with tokenizer and chat format.

        Args:
            seed: of weights that are drawn at random; unused otherwise.
        Raises:
            EnvironmentFault: weights or a package are missing.
            IntegrityFault: the weights are unsafe to load.
            DataError: erulab cannot work with the model.
        """
        ...
