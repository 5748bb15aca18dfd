"""The checks of what saves memory: which optimizers and 4-bit weights go with which engine and training."""

from __future__ import annotations

from erulab.errors import ConfigError
from erulab.models.options import Quantization
from erulab.options import EngineName, OptimizerName, RunConfig

# The optimizers whose state is one number per weight, or none: what DeepSpeed can cut into parts.
STATE_PER_WEIGHT = (OptimizerName.adamw, OptimizerName.sgd)
SHARDS_STATE = (EngineName.zero1, EngineName.zero2, EngineName.zero3)


def check_optimizer(config: RunConfig) -> None:
    """Refuses an optimizer whose state an engine cannot cut into parts, nor gather for a checkpoint."""
    name, engine = config.trainer.optimizer, config.engine.name
    if name not in STATE_PER_WEIGHT and engine in SHARDS_STATE:
        raise ConfigError(
            f"trainer.optimizer={name.value} keeps a state that engine={engine.value} cannot cut into parts; try "
            "engine=local, or engine=zero0 for several processes, or trainer.optimizer=adamw"
        )


def check_quantization(config: RunConfig) -> None:
    """Requires adapters over 4-bit weights, and an engine that keeps the packed weights whole."""
    lora, engine = config.model.lora, config.engine.name
    if lora.quantize is Quantization.none:
        return
    typed = f"model.lora.quantize={lora.quantize.value}"
    if not lora.rank:
        raise ConfigError(
            f"{typed} freezes the weights in 4 bits, and model.lora.rank=0 trains all weights; try model.lora.rank=16, "
            "or model.lora.quantize=none"
        )
    if engine is EngineName.zero3:
        raise ConfigError(
            f"{typed} packs weights, which engine=zero3 cannot cut into parts; try engine=zero2, or engine=local"
        )
