"""The model source of folders and of the Hugging Face hub."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from erulab.data.rows import Benchmark
from erulab.errors import ConfigError
from erulab.models import folders
from erulab.models.options import ModelOptions
from erulab.models.presets import PRESETS, Preset
from erulab.registry import models
from erulab.tokens.chat import ChatFormat
from erulab.tokens.templates import PromptOverrides, template_of

if TYPE_CHECKING:
    from erulab.models.loaded import LoadedModel


@dataclass
class HfOptions(ModelOptions):
    name: str = "hf"
    template: Optional[str] = None  # name of a built-in template, or a Jinja file; null: the tokenizer's own
    system: Optional[str] = None  # system turn before every prompt; null: the template's own, if it has one
    tokenizer: Optional[str] = None  # folder or hub id, for checkpoints without a tokenizer; null: each model's own


@models.register("hf", HfOptions, needs="model.path: a folder or hub id with safetensors weights")
class HfModel:
    """Any causal language model in a folder or on the Hugging Face hub."""

    def __init__(self, options: HfOptions) -> None:
        self.options = options

    @property
    def source(self) -> str:
        """The folder or hub id; a run that is given its models needs no base weights, only a tokenizer."""
        source = self.options.path or self.options.target or self.options.unlearned
        if source is None:
            raise ConfigError(
                f"model={self.options.name} needs model.path, a folder or hub id; type model.path=owner/name or "
                "./folder"
            )
        return source

    @property
    def folder(self) -> str:
        return self.source

    @property
    def overrides(self) -> PromptOverrides:
        return PromptOverrides(template_of(self.options.template), self.options.system, self.options.tokenizer)

    def validate(self) -> None:
        tokenizer = self.overrides.tokenizer
        if tokenizer is not None:
            folders.check_tokenizer(tokenizer)
        folders.check_source(self.source)
        folders.validate_given(self.options)

    def identity(self, benchmark: Benchmark) -> dict[str, Any]:
        return {"checkpoint": folders.folder_identity(self.source)}

    def architecture(self, benchmark: Benchmark | None) -> Mapping[str, Any]:
        source = self.source
        published = next((preset for preset in PRESETS.values() if preset.hub_id == source), None)
        if self.options.path is None:  # then the source is a given target, of the preset's architecture
            published = PRESETS.get(self.options.name)
        if published is not None and not Path(source).is_dir():
            return published.config
        config = folders.read_config(source)
        if config is None:
            raise ConfigError(
                f"the sizes of {source} are not known without its config.json, and nothing is fetched here; give a "
                f"local folder that holds it (hf download {source} config.json --local-dir FOLDER): model.path=FOLDER"
            )
        return config

    def chat(self, benchmark: Benchmark) -> ChatFormat:
        # Not at the top: this file is imported where torch must not be.
        from erulab.models.loading import chat_of

        return chat_of(self.source, self.overrides)

    def load(self, benchmark: Benchmark, seed: int) -> LoadedModel:
        from erulab.models.loading import load_folder

        return load_folder(self.source, self.options.attention, self.overrides)


def _register_preset(name: str, preset: Preset) -> None:
    """Registers `model=<name>`: HfModel, with the preset's hub id as path unless the user names a folder."""
    options = dataclasses.make_dataclass(
        f"{name}_options",
        [("name", str, name), ("path", Optional[str], preset.hub_id), ("template", Optional[str], preset.template)],
        bases=(HfOptions,),
        namespace={"__module__": __name__},
    )
    template = "its own chat template" if preset.template is None else f"the template {preset.template}"
    models.register(
        name,
        options,
        summary=f"model=hf with {preset.hub_id} and {template}.",
        needs="its weights from the hub, or model.path=FOLDER",
    )(HfModel)


for _name, _preset in PRESETS.items():
    _register_preset(_name, _preset)
