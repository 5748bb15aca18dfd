"""Several paired answers of a forget row: which one a pass takes, and what its reference is."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from erulab.data.rows import Benchmark
from erulab.models.loaded import LoadedModel
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded
from erulab.training.reference import reference_table
from erulab.training.unlearning_batches import UnlearningRows
from tests.cases import Case
from tests.samples.tiny import FORGET, PAIRED, RETAIN, answered
from tests.training.conftest import Unlearning

# Three alternatives of four rows.
OTHERS = [PAIRED, *([answered(row, f"{name}{i}", 3 + i) for i, row in enumerate(FORGET)] for name in ("a", "b"))]
ROWS = UnlearningRows(FORGET, [row for part in OTHERS for row in part], RETAIN)


def test_each_alternative_comes_once_in_as_many_passes_as_there_are() -> None:
    for row in range(len(FORGET)):
        indices = [ROWS.paired_index(row, number, seed=3) for number in range(6)]
        assert sorted(indices[:3]) == [row, row + 4, row + 8] and indices[3:] == indices[:3]
        assert all(ROWS.paired[i].row_id == FORGET[row].row_id for i in indices)
    orders = {tuple(ROWS.paired_index(row, n, seed) for n in range(3)) for row in range(4) for seed in range(5)}
    assert len(orders) > 4  # they differ between rows and seeds


def test_one_alternative_is_always_taken() -> None:
    rows = UnlearningRows(FORGET, PAIRED, RETAIN)
    assert [rows.paired_index(i, number, 0) for number in (0, 7) for i in range(4)] == [0, 1, 2, 3] * 2


def test_altpo_with_one_given_alternative_is_dpo_on_it(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    """Bit for bit, where dpo's drawn alternative is the one that altpo is given."""
    single = [dataclasses.replace(row, perturbed=row.perturbed[:1]) for row in world.forget]
    plain = dataclasses.replace(world, forget=single)
    altpo = Case("altpo", "reference", method_options={"alternatives": 1, "retain_weight": 1.0})
    dpo = Case("dpo", "reference", method_options={"pairs": "alternative"})
    (found, weights), (expected, same) = [Unlearning(case, plain, loaded).run(tmp_path) for case in (altpo, dpo)]
    assert [m["loss"] for m in found] == [m["loss"] for m in expected]
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_alternatives_change_from_pass_to_pass_with_their_own_reference(
    world: Benchmark, loaded: LoadedModel, tmp_path: Path
) -> None:
    """At the start u = u_ref for whichever alternative is taken, so the forget loss is 2 log 2 / beta in each pass."""
    case = Case("altpo", "reference", method_options={"alternatives": 3})
    count = len(world.forget)
    unlearning = Unlearning(case, world, loaded, global_batch=count, micro_batch=None)
    policy, objective, _, _ = unlearning.build(tmp_path)
    seen = set()
    for step in range(3):
        (micro,) = objective.micro_batches(step)
        with torch.no_grad(), objective.micro_step(policy, micro) as (_, sums):
            assert float(sums["forget_loss"]) == pytest.approx(20 * math.log(2), rel=1e-5)
        seen.update(micro.paired)
    assert seen == set(range(3 * count))


def test_the_reference_table_has_each_alternative_in_order(loaded: LoadedModel, tmp_path: Path) -> None:
    def table(paired: list[Encoded], name: str) -> torch.Tensor:
        return reference_table(
            loaded.policy, name, FORGET, paired, folder=tmp_path, pad_id=1, batch_tokens=64, ranks=Ranks()
        ).paired

    joined = table([row for part in OTHERS for row in part], "all")
    apart = torch.cat([table(part, f"part {i}") for i, part in enumerate(OTHERS)])
    torch.testing.assert_close(joined, apart, rtol=1e-5, atol=1e-5)
