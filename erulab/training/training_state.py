"""The state of a training on disk, the same for every engine: each trained weight in float32, its optimizer's state.

DeepSpeed's own checkpoints are pickles that only as many processes can read as wrote them; its universal checkpoints
are made by a second program and are pickles too. Whole tensors in safetensors files run no code, and any engine on any
number of processes reads its part of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open

from erulab.errors import IntegrityFault
from erulab.models.shards import SHARD_BYTES, write_shards
from erulab.options import OptimizerName
from erulab.training.optimizers import MOMENTS, STEP, restore_states

# The kinds of tensor that belong to a parameter; `step` is a scalar, the number of updates in its state.
WEIGHT = "weight"
KINDS = (WEIGHT, *dict.fromkeys(kind for kinds in MOMENTS.values() for kind in kinds), STEP)


def write_state(
    states: Iterable[tuple[str, dict[str, torch.Tensor]]], folder: Path, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes the states of an engine's parameters.

    Args:
        states: (name, kind -> tensor) of each parameter; one that never had a gradient has a weight only.
    """

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, state in states:
            for kind, value in state.items():
                # Codes of 8 bits stay as they are.
                dtype = torch.float32 if value.is_floating_point() else value.dtype
                yield f"{kind}/{name}", value.detach().to("cpu", dtype).contiguous()

    folder.mkdir(parents=True, exist_ok=True)
    write_shards(tensors(), folder, "state", shard_bytes)


class StateReader:
    """Reads the states of one parameter at a time; a context manager that holds the files open."""

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
        """Returns the number of updates in a parameter's state: a scalar, 0 if it has none."""
        file = self._places.get(f"{STEP}/{name}")
        return torch.zeros(()) if file is None else file.get_tensor(f"{STEP}/{name}")

    def state_of(self, name: str) -> dict[str, torch.Tensor]:
        """Returns the saved tensors of a parameter, by kind.

        Raises:
            IntegrityFault: there are none, because the checkpoint is of another model.
        """
        found = {kind: self._places[f"{kind}/{name}"] for kind in KINDS if f"{kind}/{name}" in self._places}
        if WEIGHT not in found:
            raise IntegrityFault(f"checkpoint {self._folder} holds no weight {name}; remove it to start anew")
        return {kind: file.get_tensor(f"{kind}/{name}") for kind, file in found.items()}


def whole_states(
    parameters: Iterable[tuple[str, torch.nn.Parameter]], optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Yields the states of parameters that an optimizer holds whole."""
    for name, parameter in parameters:
        kept = optimizer.state.get(parameter, {})
        # Some optimizers count their steps in a Python number.
        counted = {STEP: torch.as_tensor(kept[STEP], dtype=torch.float32)} if STEP in kept else {}
        yield name, {WEIGHT: parameter} | {kind: kept[kind] for kind in KINDS if kind in kept} | counted


def load_whole_states(
    parameters: Iterable[tuple[str, torch.nn.Parameter]],
    optimizer: torch.optim.Optimizer,
    kind: OptimizerName,
    reader: StateReader,
) -> None:
    """Restores parameters and their states in an optimizer, named by `kind`, that holds them whole."""

    def restored() -> Iterator[tuple[torch.nn.Parameter, dict[str, torch.Tensor]]]:
        for name, parameter in parameters:
            kept = reader.state_of(name)
            with torch.no_grad():
                parameter.copy_(kept.pop(WEIGHT))
            yield parameter, kept

    restore_states(kind, optimizer, restored())
