"""Methods that train a part of the model leave every other weight as it is, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erulab.data.rows import Benchmark
from erulab.methods.base import block_of
from erulab.models.loaded import LoadedModel
from tests.cases import Case
from tests.training.conftest import Unlearning


def changed_weights(case: Case, world: Benchmark, loaded: LoadedModel, folder: Path) -> set[str]:
    """Trains a few steps; returns the names of the weights that are not what they were."""
    before = {name: p.clone() for name, p in loaded.model.state_dict().items()}
    _, after = Unlearning(case, world, loaded).run(folder)
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("retain", ["states", "nll"])
def test_rmu_changes_one_matrix_of_the_blocks_up_to_its_layer(
    retain: str, world: Benchmark, loaded: LoadedModel, tmp_path: Path
) -> None:
    """Also where the forward runs through the head for the retain term."""
    case = Case("rmu", method_options={"layer": 1, "retain": retain})
    assert changed_weights(case, world, loaded, tmp_path) == {
        f"model.layers.{block}.mlp.down_proj.weight" for block in (0, 1)
    }


def test_circuit_breaker_changes_the_blocks_below_its_deepest_layer(
    world: Benchmark, loaded: LoadedModel, tmp_path: Path
) -> None:
    changed = changed_weights(Case("circuit_breaker", method_options={"layers": [1, 2]}), world, loaded, tmp_path)
    assert changed == {name for name in loaded.model.state_dict() if block_of(name) in (0, 1)}
