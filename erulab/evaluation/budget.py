"""How many tokens one forward of an evaluation may have: a fixed number, or as many as memory and speed suggest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from erulab import logprobs
from erulab.costs.families import is_known
from erulab.costs.inference import activation_bytes, cache_bytes, logits_bytes
from erulab.costs.shapes import ModelShape
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks

SHARE = 1 / 3  # of the free memory
LEAST = 256  # tokens, however little memory is free

# On CPUs more tokens than these make nothing faster, and a limit that does not depend on what is free at the moment
# gives the same batches, and so the same bits, every time (a machine with 3 GiB of free memory reaches it).
CPU_CACHE = 2**30  # bytes of keys and values
CPU_ACTIVATIONS = 3 * 2**24  # bytes: larger activations of a forward leave the processor's cache
# The C library takes memory blocks of 32 MiB from the system anew each time, which costs as much as using them.
CPU_LOGITS = 3 * 2**23

# On GPUs: a mask between all packed tokens takes the square of their number; with this many there is no idle unit left.
GPU_SCORING = 2**14
GPU_GENERATION = 2**17


@dataclass(frozen=True)
class Budget:
    """Tokens of one forward while a model is scored.

    scoring: tokens that a teacher-forced forward computes.
    generation: prompt and response tokens, padding included, that a batch of generation holds.
    head_positions: positions whose logits exist at once in scoring.
    """

    scoring: int
    generation: int
    head_positions: int


def choose_budget(loaded: LoadedModel, options: EvaluationOptions, ranks: Ranks) -> Budget:
    """Returns the budget of `evaluation.batch_tokens`; null chooses it from free memory. All ranks get the same.

    Model types whose sizes are not known to `costs` get the fixed number that the rest of a run takes.
    """
    config = loaded.model.config
    parameter = next(loaded.model.parameters())
    if not is_known(config.model_type):
        return Budget(options.fixed_tokens, options.fixed_tokens, logprobs.CHUNK)
    shape, number = ModelShape.from_config(config.to_dict()), parameter.element_size()
    # 4-bit weights have one byte per number; they compute in another format.
    number = number if parameter.is_floating_point() else 2
    if parameter.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(parameter.device)
        found = gpu_budget(shape, number, free)
    else:
        found = cpu_budget(shape, number, free_memory() // ranks.world)
    if options.batch_tokens is not None:
        found = Budget(options.batch_tokens, options.batch_tokens, found.head_positions)
    each = ranks.gather_objects((found.scoring, found.generation, found.head_positions))
    return Budget(*(min(values) for values in zip(*each, strict=True)))


def cpu_budget(shape: ModelShape, number: int, free: int) -> Budget:
    """Returns the budget of a model on a CPU.

    Args:
        number: bytes per number of the model's weights.
        free: bytes of free memory for one process.
    """
    # A power of two, so that a few bytes more or less do not change the batches.
    share = 2 ** max(int(free * SHARE).bit_length() - 1, 0)
    scoring = min(share, CPU_ACTIVATIONS) // activation_bytes(shape, number)
    generation = min(share, CPU_CACHE) // generation_bytes(shape, number)
    positions = CPU_LOGITS // (shape.vocabulary * max(number, 4))
    return Budget(max(scoring, LEAST), max(generation, LEAST), min(max(positions, 16), logprobs.CHUNK))


def gpu_budget(shape: ModelShape, number: int, free: int) -> Budget:
    """Returns the budget of a model on a GPU; the arguments are those of `cpu_budget`."""
    share = int(free * SHARE)
    left = max(share - logprobs.CHUNK * logits_bytes(shape, number), 0)
    scoring = min(left // activation_bytes(shape, number), GPU_SCORING)
    generation = min(share // generation_bytes(shape, number), GPU_GENERATION)
    return Budget(max(scoring, LEAST), max(generation, LEAST), logprobs.CHUNK)


def generation_bytes(shape: ModelShape, number: int) -> int:
    """Returns the bytes per token that the budget of generation is counted in.

    A batch holds keys and values of all its tokens. While it reads the prompts it holds their activations, too: with
    the larger of both terms that is at most twice the budget, two thirds of the free memory.
    """
    cache = cache_bytes(shape, number)
    return max(cache, (cache + activation_bytes(shape, number)) // 2)


def free_memory() -> int:
    """Returns the bytes that this process can still take: those of the machine, or of its control group if fewer."""
    free = psutil.virtual_memory().available
    own = Path("/proc/self/cgroup")
    paths = [line.partition("::")[2] for line in own.read_text().splitlines()] if own.is_file() else []
    for path in filter(None, paths):  # version 2 has one line, "0::/path"; a limit may stand on any folder above, too
        group = Path("/sys/fs/cgroup") / path.lstrip("/")
        for folder in (group, *group.parents):
            limit = folder / "memory.max"
            if limit.is_file() and (words := limit.read_text().strip()) != "max":
                statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                held = int((folder / "memory.current").read_text()) - int(statistics["inactive_file"])
                free = min(free, int(words) - held)
    return max(free, 0)
