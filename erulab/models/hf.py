"""Any causal language model of a folder or the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from erulab.data.rows import Benchmark
from erulab.errors import ConfigError
from erulab.models import folders
from erulab.models.base import ModelOptions
from erulab.models.chat import ChatFormat
from erulab.registry import models

if TYPE_CHECKING:
    from erulab.models.loaded import LoadedModel


@dataclass
class HfOptions(ModelOptions):
    name: str = "hf"


@models.register("hf", HfOptions, needs="model.path: a folder or hub id with safetensors weights")
class HfModel:
    """Any causal language model in a folder or on the Hugging Face hub, by its own chat template."""

    def __init__(self, options: HfOptions) -> None:
        self.options = options

    @property
    def source(self) -> str:
        """Folder or hub id; a run that is given its target needs no base weights, only the target's tokenizer."""
        source = self.options.path or self.options.target
        if source is None:
            raise ConfigError("model=hf needs model.path, a folder or hub id; type model.path=owner/name or ./folder")
        return source

    @property
    def folder(self) -> str:
        return self.source

    def validate(self) -> None:
        folders.check_source(self.source)
        folders.validate_given(self.options)

    def identity(self, benchmark: Benchmark) -> dict[str, Any]:
        return {"checkpoint": folders.folder_identity(self.source)}

    def chat(self, benchmark: Benchmark) -> ChatFormat:
        # Not at the top: this file is imported where torch must not be.
        from erulab.models.loading import chat_of

        return chat_of(self.source)

    def load(self, benchmark: Benchmark, seed: int) -> LoadedModel:
        from erulab.models.loading import load_folder

        return load_folder(self.source, self.options.attention)
