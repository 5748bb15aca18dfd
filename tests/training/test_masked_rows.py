"""Rows of which no token counts: they add nothing, and the mean is over the tokens of the whole global batch."""

from __future__ import annotations

import pytest
import torch

from erulab.models.policy import Policy
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded
from erulab.training.batches import Split
from erulab.training.objective import BatchPlan, FinetuneObjective
from tests.samples import tiny

MASKED = [Encoded("m0", tiny.FORGET[0].ids, len(tiny.FORGET[0].ids), len(tiny.FORGET[0].ids))]


@pytest.mark.parametrize("micro_batch", [1, 2, None])
def test_a_micro_batch_without_a_supervised_token_adds_nothing(micro_batch: int | None) -> None:
    """FAULTS 14: with rows one at a time a whole micro-batch is masked; the expected loss is written out by row."""
    model, counted = tiny.random_model(), tiny.FORGET[:3]
    rows = [*counted[:1], *MASKED, *counted[1:]]
    plan = BatchPlan(len(rows), Split(micro_batch=micro_batch), 0, 1, Ranks())
    policy, found = Policy(model), torch.zeros((), dtype=torch.float64)
    objective = FinetuneObjective(rows, plan, policy.device)
    micros = objective.cut(range(len(rows)), rows)
    assert any(not micro.batch.supervised.any() for micro in micros) == (micro_batch == 1)
    for micro in micros:
        with objective.micro_step(policy, micro) as (loss, sums):
            loss.backward()
            assert torch.isfinite(loss)
            found += sums["loss"]
    gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    expected = sum(tiny.naive_nll(model, row) for row in counted) / sum(row.tokens for row in counted)
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(gradients, tiny.gradients(expected, model))
