"""Parameter counts against models that transformers builds and against published counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from erulab.costs.shapes import Adapters, ModelShape
from erulab.errors import ConfigError
from erulab.models.loaded import LoadedModel
from erulab.models.lora import with_lora
from erulab.models.presets import PRESETS
from erulab.models.smollm2 import ARCHITECTURE
from tests.costs.families import CONFIGS, model_of

# From the pages of the models on the hub.
PUBLISHED = {
    "llama2_7b_chat": 6_738_415_616,
    "llama3_8b_instruct": 8_030_261_248,
    "llama31_8b_instruct": 8_030_261_248,
    "llama32_1b_instruct": 1_235_814_400,
    "llama32_3b_instruct": 3_212_749_824,
    "zephyr_7b_beta": 7_241_732_096,
    "phi_1_5": 1_418_270_720,
    "phi3_mini_4k_instruct": 3_821_079_552,
    "gemma_2b_it": 2_506_172_416,
    "gemma_7b_it": 8_537_680_896,
    "qwen25_1_5b_instruct": 1_543_714_304,
    "qwen25_7b_instruct": 7_615_616_512,
    "qwen3_4b": 4_022_468_096,
    "gemma2_2b_it": 2_614_341_888,
    "gemma2_9b_it": 9_241_705_984,
    "gemma3_1b_it": 999_885_952,
    "mixtral_8x7b_instruct": 46_702_792_704,
    "qwen3_30b_a3b": 30_532_122_624,
    "olmoe_1b_7b_instruct": 6_919_161_856,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_of_every_family(name: str) -> None:
    model = model_of(CONFIGS[name])
    shape = ModelShape.from_config(CONFIGS[name])
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    # The same from the config that transformers writes, in which every size is named.
    assert ModelShape.from_config(model.config.to_dict()) == shape
    loaded = LoadedModel(model, None, None)  # type: ignore[arg-type]
    adapted = with_lora(loaded, rank=4, alpha=8, seed=0).model
    assert shape.adapter_parameters(Adapters(4)) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    names = {name.split(".")[-4] for name, _ in adapted.named_parameters() if ".lora_A." in name}
    assert names == set(shape.adaptable)


def test_published_parameters() -> None:
    counted = {name: ModelShape.from_config(preset.config).parameters for name, preset in PRESETS.items()}
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.Qwen3_5TextConfig())
    # Its page counts the part that reads images too.
    assert counted.pop("qwen35_9b") == sum(p.numel() for p in model.parameters())
    assert counted == PUBLISHED
    assert ModelShape.from_config(ARCHITECTURE).parameters == 134_515_008


def test_a_token_goes_through_the_experts_that_it_is_sent_to() -> None:
    """Mixtral's paper says 47B and 13B, Qwen's page 30.5B and 3.3B, OLMoE's 7B and 1B."""
    active = {name: ModelShape.from_config(preset.config).active_parameters for name, preset in PRESETS.items()}
    assert active["mixtral_8x7b_instruct"] == pytest.approx(13e9, rel=0.01)
    assert active["qwen3_30b_a3b"] == pytest.approx(3.3e9, rel=0.02)
    assert active["olmoe_1b_7b_instruct"] == pytest.approx(1.3e9, rel=0.02)
    assert active["gemma2_2b_it"] == PUBLISHED["gemma2_2b_it"]


def test_the_text_part_of_a_model_of_images_is_read() -> None:
    text = CONFIGS["qwen3_5"]
    whole = {"model_type": "qwen3_5", "text_config": text, "vision_config": {"depth": 2}}
    assert ModelShape.from_config(whole) == ModelShape.from_config(text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not known to erulab.costs; known: llama"),
        ({"hidden_size": None}, "hidden_size must be a whole number > 0, got None"),
        ({"vocab_size": "many"}, "vocab_size must be a whole number > 0, got many"),
    ],
)
def test_an_incomplete_config_is_an_error(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        ModelShape.from_config(CONFIGS["llama"] | change)
    assert "\n" not in str(caught.value)
