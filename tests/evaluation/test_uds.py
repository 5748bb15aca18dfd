"""UDS against sums written out, and on models of which it is known where they know the values."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from erulab.evaluation.depth.patching import PatchedRow, save_states, score_patched
from erulab.evaluation.depth.score import Depth, Values, depth_score, mean_gap
from erulab.models.loaded import LoadedModel
from erulab.tokens.batch import Encoded
from tests.evaluation.test_patching import Pad
from tests.samples import tiny

BLOCKS = 6


def test_is_the_weighted_mean_over_the_layers_that_hold_the_fact() -> None:
    gap = np.array([[0.04, 0.5, 1.5], [0.0, -1.0, 2.0], [0.01, 0.05, 0.0]])
    drop = np.array([[0.04, 0.1, 3.0], [0.5, 1.0, 0.5], [1.0, 1.0, 1.0]])
    found = depth_score(gap, drop, ["a", "b", "c"])
    # Row 0: (0.5 * 0.2 + 1.5 * 1) / 2; row 1: 0.25 at its only layer; row 2 has none.
    np.testing.assert_allclose(found.rows, [0.8, 0.25, np.nan])
    np.testing.assert_allclose(found.layers, [np.nan, 0.2, (1.5 + 0.5) / 3.5])
    np.testing.assert_allclose(mean_gap(gap), [0, 0.5 / 3, 3.5 / 3])
    assert found.value == pytest.approx((0.8 + 0.25) / 2) and found.count == 2


def test_is_undefined_if_no_layer_holds_a_fact() -> None:
    found = depth_score(np.full((4, 3), 0.05), np.ones((4, 3)), ["a"] * 4)
    assert (found.value, found.interval, found.count) == (None, None, 0)


def test_the_interval_resamples_facts() -> None:
    """200 facts of share 0 or 1, in five equal phrasings each: the standard error is that of 200 draws."""
    shares = np.repeat(np.arange(200) % 2, 5).astype(float)
    found = depth_score(np.ones((1000, 1)), shares[:, None], [str(i // 5) for i in range(1000)])
    half = 1.96 * 0.5 / 200**0.5
    assert found.value == 0.5 and found.interval == pytest.approx((0.5 - half, 0.5 + half), abs=0.1 * half)


# On models: the values are what the target itself answers, so any other states cost it probability.


def knowing_rows(target: PreTrainedModel) -> list[Encoded]:
    """Returns rows with a value of two tokens: those that the target finds most probable after a random prompt."""
    rows = []
    for number in range(40):
        ids = list(tiny.encoded(f"p{number}", 6, 2).ids[:6])
        for _ in range(2):
            with torch.no_grad():
                ids.append(int(target(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        rows.append(Encoded(f"p{number}", tuple(ids), 6, 8, (6, 7)))
    return rows


@dataclasses.dataclass(frozen=True)
class World:
    target: PreTrainedModel
    oracle: PreTrainedModel
    rows: list[Encoded]
    folder: Path

    def patched(self, source: PreTrainedModel) -> list[PatchedRow]:
        file = self.folder / "states.npy"
        save_states(LoadedModel(source, None, Pad()), self.rows, 10_000, file)  # type: ignore[arg-type]
        return score_patched(LoadedModel(self.target, None, Pad()), self.rows, 10_000, file)  # type: ignore[arg-type]

    def drops(self, source: PreTrainedModel) -> Values:
        return np.array([[row.plain - value for value in row.patched] for row in self.patched(source)])

    def depth(self, source: PreTrainedModel) -> Depth:
        return depth_score(self.drops(self.oracle), self.drops(source), [row.row_id for row in self.rows])

    def log_prob(self, model: PreTrainedModel) -> float:
        """Returns the mean log-probability of the values by the model's own outputs."""
        return -float(torch.stack([tiny.naive_nll(model, row) for row in self.rows]).mean().detach()) / 2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    target = tiny.random_model(layers=BLOCKS)
    return World(target, tiny.moved(target, 0.25), knowing_rows(target), tmp_path_factory.mktemp("states"))


def hybrid(world: World, changed: tuple[str, ...]) -> PreTrainedModel:
    """Returns the target with the oracle's weights in the modules whose names begin so."""
    model = copy.deepcopy(world.target)
    others = {name: value for name, value in world.oracle.state_dict().items() if name.startswith(changed)}
    model.load_state_dict(others, strict=False)
    assert others
    return model


def test_the_oracle_has_one_and_the_target_zero(world: World) -> None:
    assert world.depth(copy.deepcopy(world.oracle)).value == 1.0
    assert world.depth(copy.deepcopy(world.target)).value == pytest.approx(0, abs=1e-5)


def test_a_model_that_is_the_oracle_from_one_block_on_is_a_step(world: World) -> None:
    """Blocks 3, 4 and 5 are the oracle's: h_1 .. h_3 are the target's, h_4 .. h_6 are not."""
    found = world.depth(hybrid(world, tuple(f"model.layers.{i}." for i in (3, 4, 5))))
    assert found.layers[:3] == pytest.approx([0, 0, 0], abs=1e-5)
    assert min(found.layers[3:]) > 0.3


def test_a_model_that_is_the_oracle_up_to_one_block_is_the_oracle_there(world: World) -> None:
    below = ("model.embed_tokens.", *(f"model.layers.{i}." for i in (0, 1, 2)))
    assert world.depth(hybrid(world, below)).layers[:3] == pytest.approx([1, 1, 1])


def test_a_hider_has_a_low_depth_though_its_outputs_know_as_little_as_the_oracles(world: World) -> None:
    know, ignorant = world.log_prob(world.target), world.log_prob(world.oracle)
    assert know - ignorant > 1
    masked_head, masked_block = copy.deepcopy(world.target), copy.deepcopy(world.target)
    with torch.no_grad():
        masked_head.lm_head.weight.neg_()  # the most probable words become the least probable ones
        masked_block.model.layers[-1].mlp.down_proj.weight.mul_(-20)
    for hider in (masked_head, masked_block):
        assert (world.log_prob(hider) - ignorant) / (know - ignorant) < 0.15  # next to no knowledge left by outputs
    assert world.depth(masked_head).value == pytest.approx(0, abs=1e-5)
    found = world.depth(masked_block)
    assert found.layers[:-1] == pytest.approx([0] * (BLOCKS - 1), abs=1e-5) and found.layers[-1] > 0.8
    assert found.value is not None and found.value < 2 / BLOCKS
