"""Parameter counts against models that transformers builds and against published counts."""

from __future__ import annotations

from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from erulab.costs.shapes import FAMILIES, Adapters, ModelShape
from erulab.errors import ConfigError
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
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_of_every_family(name: str) -> None:
    model = model_of(CONFIGS[name])
    shape = ModelShape.from_config(CONFIGS[name])
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    # The same from the config that transformers writes, in which every size is named.
    assert ModelShape.from_config(model.config.to_dict()) == shape
    adapters = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert shape.adapter_parameters(Adapters(4)) == sum(p.numel() for p in adapters.parameters() if p.requires_grad)


def test_published_parameters() -> None:
    known = {name: preset.config for name, preset in PRESETS.items() if preset.config["model_type"] in FAMILIES}
    counted = {name: ModelShape.from_config(config).parameters for name, config in known.items()}
    assert counted == PUBLISHED
    assert ModelShape.from_config(ARCHITECTURE).parameters == 134_515_008


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
