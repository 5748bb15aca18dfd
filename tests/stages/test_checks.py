"""What a model's config.json alone tells about method and adapters, before weights are loaded."""

from __future__ import annotations

from typing import Any

import pytest

from erulab.costs.shapes import Adapters, ModelShape
from erulab.errors import ConfigError
from erulab.methods.npo import NPO, NPOOptions
from erulab.methods.rmu import RMU, RMUOptions
from erulab.models.folders import depth_of
from erulab.models.presets import PRESETS
from erulab.stages.checks import check_adapters

MIXTURES = ("mixtral_8x7b_instruct", "qwen3_30b_a3b", "olmoe_1b_7b_instruct")


@pytest.mark.parametrize("name", MIXTURES)
def test_rmu_with_adapters_on_a_mixture_is_refused(name: str) -> None:
    """It trains the matrices that experts write with, and adapters are on attention alone."""
    shape = ModelShape.from_config(PRESETS[name].config)
    with pytest.raises(ConfigError, match="method=rmu trains none .*for a mixture.*model.lora.rank=0") as caught:
        check_adapters(RMU(RMUOptions()), Adapters(8), shape)
    assert "\n" not in str(caught.value)
    check_adapters(NPO(NPOOptions()), Adapters(8), shape)


def test_rmu_needs_adapters_on_the_matrices_that_it_trains() -> None:
    shape, method = ModelShape.from_config(PRESETS["qwen35_9b"].config), RMU(RMUOptions())
    check_adapters(method, Adapters(8), shape)
    check_adapters(method, Adapters(8, ("down_proj", "q_proj")), shape)
    with pytest.raises(ConfigError, match="type model.lora.targets=null"):
        check_adapters(method, Adapters(8, ("q_proj", "in_proj_qkv")), shape)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "olmo2", "num_hidden_layers": 4},
        {"model_type": "gpt_neo_of_old", "n_layer": 4},
        {"model_type": "qwen3_5", "text_config": {"num_hidden_layers": 4}, "vision_config": {"depth": 27}},
    ],
)
def test_the_depth_is_read_of_every_model_type(config: dict[str, Any]) -> None:
    """Layers that options name are checked against it."""
    assert depth_of(config) == 4
    assert depth_of({"model_type": "of sizes under other keys"}) is None
