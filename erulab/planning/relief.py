"""Names options that would let a run that was out of memory go on, for the line that it ends with."""

from __future__ import annotations

from erulab.methods.base import GradientMethod
from erulab.options import EngineName, Offload, OptimizerName, RunConfig
from erulab.registry import methods, rewards

MOST = 3
SCORING_TOKENS = 2048  # of a forward, where the run has left it to the free memory


def options_that_help(config: RunConfig, stage: str, *, gpu: bool) -> list[str]:
    """Returns up to three overrides that lower the memory of the stage, those that change least first.

    Args:
        config: the run's.
        stage: the word of `Stage` that the run was in; "" before the first.
        gpu: whether the memory is a GPU's, where sharding helps; processes on a CPU share one memory.
    """
    if stage in ("evaluate", "attack"):
        found = _scoring(config, attacks=stage == "attack")
    else:
        found = [*_rows_per_forward(config, stage), *_training(config, stage, gpu=gpu)]
    return found[:MOST]


def _rows_per_forward(config: RunConfig, stage: str) -> list[str]:
    learns = stage in ("target", "oracle")
    key, options = ("target", config.target) if learns else ("trainer", config.trainer)
    if not learns and config.reward.name != "none" and rewards.build(config.reward).needs_whole_batch:
        return []
    if options.micro_batch is None and config.trainer.micro_tokens is not None:
        return [f"trainer.micro_tokens={max(config.trainer.micro_tokens // 2, 1)}"]
    share = options.global_batch // config.engine.world
    rows = options.micro_batch or share
    if rows < 2:
        return []
    return [f"{key}.micro_batch={max(n for n in range(1, rows // 2 + 1) if share % n == 0)}"]


def _training(config: RunConfig, stage: str, *, gpu: bool) -> list[str]:
    trainer, engine = config.trainer, config.engine
    found = [] if trainer.checkpointing else ["trainer.checkpointing=true"]
    if gpu and engine.world > 1 and engine.name is not EngineName.zero3:
        found.append("engine=zero3")
    if gpu and engine.offload is Offload.none:
        found.append("engine=zero3_offload")
    if not gpu and engine.world > 1:
        found.append("engine=local")
    if stage == "unlearn":
        if trainer.optimizer is OptimizerName.adamw and not gpu:
            found.append("trainer.optimizer=adafactor")
        if not config.model.lora.rank and isinstance(methods.build(config.method), GradientMethod):
            found.append("model.lora.rank=16")
    return found


def _scoring(config: RunConfig, *, attacks: bool) -> list[str]:
    options = config.evaluation
    tokens = SCORING_TOKENS if options.batch_tokens is None else options.batch_tokens // 2
    found = [f"evaluation.batch_tokens={max(tokens, 1)}"]
    if attacks and len(config.attack) > 1:
        found.append(f"fewer attacks, such as attack=[{next(iter(config.attack))}]")
    if attacks:
        found += _rows_per_forward(config, "attack")
    if options.uds:
        found.append("evaluation.uds=false")
    if options.generate and not attacks:
        found.append("evaluation.generate=false")
    return found
