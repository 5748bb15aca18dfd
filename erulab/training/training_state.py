"""The checkpoint of a training, the same from every engine: each trained weight in float32 with its Adam statistics.

DeepSpeed's own checkpoints are pickles, of as many processes as wrote them; its universal ones are made by a second
program and are pickles too. Whole tensors in safetensors files run no code, and any engine on any number of processes
takes its part of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open

from erulab.errors import IntegrityFault
from erulab.models.shards import SHARD_BYTES, write_shards

# The kinds of tensor that belong to a parameter; `step` is a scalar, the updates its statistics have seen.
WEIGHT, STEP = "weight", "step"
MOMENTS = ("exp_avg", "exp_avg_sq")
KINDS = (WEIGHT, *MOMENTS, STEP)


def write_state(
    states: Iterable[tuple[str, dict[str, torch.Tensor]]], folder: Path, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes what one engine says of its parameters; a parameter that never had a gradient has a weight only."""

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, state in states:
            for kind, value in state.items():
                yield f"{kind}/{name}", value.detach().to("cpu", torch.float32).contiguous()

    folder.mkdir(parents=True, exist_ok=True)
    write_shards(tensors(), folder, "state", shard_bytes)


class StateReader:
    """Reads a parameter at a time; a context manager that holds the files open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = ExitStack()
        self._places = {}
        for file in sorted(folder.glob("*.safetensors")):
            opened = self._files.enter_context(safe_open(file, framework="pt"))
            self._places.update(dict.fromkeys(opened.keys(), opened))

    def __enter__(self) -> StateReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def step(self, name: str) -> torch.Tensor:
        """The updates that a parameter's statistics have seen: a scalar, 0 where it has none."""
        file = self._places.get(f"{STEP}/{name}")
        return torch.zeros(()) if file is None else file.get_tensor(f"{STEP}/{name}")

    def of(self, name: str) -> dict[str, torch.Tensor]:
        """What is kept of a parameter, by kind.

        Raises:
            IntegrityFault: nothing is: the checkpoint is of another model.
        """
        found = {kind: self._places[f"{kind}/{name}"] for kind in KINDS if f"{kind}/{name}" in self._places}
        if WEIGHT not in found:
            raise IntegrityFault(f"checkpoint {self._folder} holds no weight {name}; remove it to start anew")
        return {kind: file.get_tensor(f"{kind}/{name}") for kind, file in found.items()}


def whole_states(
    parameters: Iterable[tuple[str, torch.nn.Parameter]], optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """The states of parameters that a torch optimizer holds whole."""
    for name, parameter in parameters:
        kept = optimizer.state.get(parameter, {})
        yield name, {WEIGHT: parameter} | {kind: kept[kind] for kind in (*MOMENTS, STEP) if kind in kept}


def load_whole_states(
    parameters: Iterable[tuple[str, torch.nn.Parameter]], optimizer: torch.optim.Optimizer, reader: StateReader
) -> None:
    """Puts the states back into parameters and the torch optimizer that holds them whole."""
    for name, parameter in parameters:
        kept = reader.of(name)
        with torch.no_grad():
            parameter.copy_(kept.pop(WEIGHT))
        # torch's fused AdamW counts on the parameter's device; its statistics have the parameter's type.
        optimizer.state[parameter] = {
            kind: value.to(parameter.device, torch.float32 if kind == STEP else parameter.dtype)
            for kind, value in kept.items()
        }
