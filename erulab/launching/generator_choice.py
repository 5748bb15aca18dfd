"""Checks that the program that generates responses can run here (`evaluation.generator`)."""

from __future__ import annotations

import importlib.util

from erulab.errors import ConfigError, EnvironmentFault
from erulab.launching.machine import GPU
from erulab.options import EngineName, Generator, RunConfig, Stage

INSTEAD = "type evaluation.generator=torch"


def check_generator(config: RunConfig, gpus: list[GPU]) -> None:
    """Checks what vLLM needs, where it is to generate responses.

    Args:
        config: its engine is definite.
        gpus: those that the run will have.
    Raises:
        ConfigError: the run has several processes, or DeepSpeed's engine in one.
        EnvironmentFault: vLLM is not installed, or there is no GPU.
    """
    evaluation = config.evaluation
    if evaluation.generator is not Generator.vllm or not evaluation.generate or Stage.evaluate not in config.stages:
        return
    if config.engine.name is not EngineName.local:
        raise ConfigError(
            f"evaluation.generator=vllm runs beside one process of engine=local, got engine={config.engine.name.value} "
            f"with {config.engine.world} process{'es' * (config.engine.world > 1)}; type engine=local, or {INSTEAD}"
        )
    if importlib.util.find_spec("vllm") is None:
        raise EnvironmentFault(
            "evaluation.generator=vllm needs vLLM, which is not installed here; install a version that runs with this "
            f"torch (it pins its own), or {INSTEAD}"
        )
    if not gpus:
        raise EnvironmentFault(f"evaluation.generator=vllm needs an NVIDIA GPU, and this run has none; {INSTEAD}")
