"""Chooses the engine of a run, and checks that this machine has what the engine needs."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from erulab.errors import EnvironmentFault
from erulab.launching.machine import GPU
from erulab.models.options import Quantization
from erulab.options import EngineName, EngineOptions, Offload, Precision, RunConfig


def choose_engine(engine: EngineOptions, gpus: int) -> EngineOptions:
    """Returns the options with a definite engine and number of processes.

    `auto` is one process of the local engine on the CPU or one GPU; zero2 with one process per GPU from two GPUs or two
    hosts on.

    Args:
        engine: the options, as typed.
        gpus: number of GPUs on this host.
    """
    alone = engine.name is EngineName.local or (engine.name is EngineName.auto and gpus < 2 and engine.nodes == 1)
    processes = engine.processes or (1 if alone else max(gpus, 1))
    name = engine.name
    if name is EngineName.auto:
        name = EngineName.zero2 if processes * engine.nodes > 1 else EngineName.local
    return dataclasses.replace(engine, name=name, processes=processes)


def check_machine(config: RunConfig, gpus: list[GPU]) -> None:
    """Checks, before a worker starts, that this machine has what the run needs.

    Args:
        config: its engine is definite.
        gpus: those that the run will have.
    Raises:
        EnvironmentFault: what is missing, and the setting to use instead.
    """
    engine = config.engine
    processes = engine.processes or 1
    if gpus and processes > len(gpus):
        raise EnvironmentFault(
            f"engine.processes={processes}, but this machine offers {len(gpus)} GPU{'s' * (len(gpus) > 1)}; "
            f"try engine.processes={len(gpus)}, or CUDA_VISIBLE_DEVICES= to run on the CPU"
        )
    old = next((gpu for gpu in gpus if gpu.capability is not None and gpu.capability < 8), None)
    if config.trainer.precision is Precision.bf16 and old is not None:
        raise EnvironmentFault(f"trainer.precision=bf16, which {old.name} cannot do; try trainer.precision=fp32")
    _check_bitsandbytes(config)
    if engine.name is EngineName.local:
        return
    instead = "try engine=local, which needs no DeepSpeed"
    if importlib.util.find_spec("deepspeed") is None:
        raise EnvironmentFault(f"engine={engine.name.name} needs DeepSpeed: pip install deepspeed, or {instead}")
    compilers = find_compilers()
    if not gpus and (missing := lacking_to_compile(compilers)):
        raise EnvironmentFault(f"engine={engine.name.name} on CPUs needs {missing}; install it, or {instead}")
    if engine.offload is Offload.nvme:
        _check_nvme(engine, compilers)


def find_compilers() -> list[str]:
    """Returns the C++ compilers that are installed, by the name to call."""
    return [name for name in (os.environ.get("CXX", "c++"), "g++", "clang++") if shutil.which(name)]


def lacking_to_compile(compilers: list[str]) -> str:
    """Returns what is missing for DeepSpeed to compile its communication on CPUs, which it does when it starts, with
    the command that installs it; an empty text if nothing is."""
    ninja = shutil.which("ninja") is not None or importlib.util.find_spec("ninja") is not None
    if compilers and ninja:
        return ""
    return "ninja (pip install ninja)" if compilers else "a C++ compiler (apt install g++)"


def _check_bitsandbytes(config: RunConfig) -> None:
    optimizer, quantize = config.trainer.optimizer, config.model.lora.quantize
    wanted = {f"trainer.optimizer={optimizer.value}": "trainer.optimizer=adafactor"} if optimizer.in_8_bits else {}
    if quantize is not Quantization.none:
        wanted[f"model.lora.quantize={quantize.value}"] = "model.lora.quantize=none"
    if wanted and importlib.util.find_spec("bitsandbytes") is None:
        need = "needs" if len(wanted) == 1 else "need"
        raise EnvironmentFault(
            f"{' and '.join(wanted)} {need} bitsandbytes, which is not installed here; type pip install bitsandbytes, "
            f"or {' '.join(wanted.values())}"
        )


def _check_nvme(engine: EngineOptions, compilers: list[str]) -> None:
    """Checks that DeepSpeed's disk operator can be compiled, by linking a small program as DeepSpeed does."""
    instead = "try engine.offload=cpu"
    flags = [shlex.split(os.environ.get(name, "")) for name in ("CFLAGS", "LDFLAGS")]
    linked = (
        compilers
        and subprocess.run(
            [compilers[0], "-x", "c", "-", *flags[0], "-o", os.devnull, *flags[1], "-laio"],
            input="#include <libaio.h>\nint main(void) { return io_submit(0, 0, 0); }\n",
            text=True,
            capture_output=True,
        ).returncode
        == 0
    )
    if not linked:
        raise EnvironmentFault(
            "engine.offload=nvme needs libaio and its header, and a program with them does not compile here; install "
            f"them (apt install libaio-dev), or {instead}"
        )
    if engine.nvme_path is None or not os.access(engine.nvme_path, os.W_OK) or not Path(engine.nvme_path).is_dir():
        raise EnvironmentFault(f"engine.nvme_path={engine.nvme_path} is no folder to write to; make it, or {instead}")
