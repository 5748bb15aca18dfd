"""Pure functions (projection, difference of means, ratio to shuffled labels); states against those of the model."""

from __future__ import annotations

import pytest
import torch

from erulab.adversaries.directions import (
    at_least_float32,
    difference_of_means,
    direction_ratio,
    last_prompt_states,
    project_out,
    unit,
)
from erulab.models.policy import Policy
from erulab.tokens.batch import Encoded, collate
from tests.samples.tiny import FORGET, KINDS, WIDTH, random_model

STATES = torch.randn(3, 4, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
R = unit(torch.randn(WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


def test_projection_leaves_nothing_along_the_direction() -> None:
    assert (project_out(STATES, R) @ R).abs().max() < 1e-14


def test_projection_is_idempotent() -> None:
    once = project_out(STATES, R)
    torch.testing.assert_close(project_out(once, R), once, rtol=0, atol=1e-14)


def test_projection_changes_only_the_direction() -> None:
    """I - r r^T, written as a matrix."""
    torch.testing.assert_close(project_out(STATES, R), STATES @ (torch.eye(WIDTH).double() - torch.outer(R, R)))


def test_fill_is_the_coordinate_along_the_direction() -> None:
    got = project_out(STATES, R, 1.7)
    torch.testing.assert_close(got @ R, torch.full((3, 4), 1.7).double())
    torch.testing.assert_close(project_out(got, R), project_out(STATES, R))


def test_zero_direction_changes_no_bit() -> None:
    assert torch.equal(project_out(STATES, torch.zeros_like(R)), STATES)


def test_unit() -> None:
    vectors = torch.stack([R * 7, torch.zeros_like(R), R * 1e-200])
    got = unit(vectors)
    torch.testing.assert_close(got, torch.stack([R, torch.zeros_like(R), R]))


def test_difference_of_means() -> None:
    """Three rows against two."""
    states = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 3.0], [10.0, 1.0], [20.0, 2.0]])
    assert difference_of_means(states, 3).tolist() == [-13.0, -0.5]


def test_ratio_tells_a_direction_from_noise() -> None:
    """Two clouds of one distribution: about 1. Means 10 deviations apart in 16 dimensions: far above."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(64, 3, WIDTH, generator=generator, dtype=torch.float64)
    order = torch.randperm(64, generator=generator).tolist()
    assert direction_ratio(rows, 32, order) == pytest.approx(1.0, abs=0.4)
    apart = rows.clone()
    apart[:32] += 10.0
    assert direction_ratio(apart, 32, order) > 5
    assert direction_ratio(rows, 32, list(range(64))) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_of_the_prompt_alone(kind: str) -> None:
    """h_l for l < L as the model returns it for the unpadded prompt; the final norm of h_L is its last state."""
    model = random_model(kind)
    policy, layers = Policy(model), [0, 1, 2, 3]
    got = last_prompt_states(policy, collate(FORGET, 1), layers)
    assert got.shape == (len(FORGET), 4, WIDTH)
    for i, row in enumerate(FORGET):
        own = model(input_ids=torch.tensor([row.ids[: row.start]]), output_hidden_states=True).hidden_states
        for layer in (0, 1, 2):
            torch.testing.assert_close(got[i, layer], own[layer][0, -1], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(policy.norm(got[i, 3]), own[3][0, -1], rtol=1e-6, atol=1e-6)


def test_states_do_not_depend_on_the_response() -> None:
    policy = Policy(random_model())
    short = [Encoded(row.row_id, row.ids[: row.start], row.start, row.start) for row in FORGET]
    torch.testing.assert_close(
        last_prompt_states(policy, collate(FORGET, 1), [3]), last_prompt_states(policy, collate(short, 1), [3])
    )


def test_text_without_a_prompt_is_read_at_its_last_token() -> None:
    """Beside a row with a prompt, longer and shorter: the model's own last hidden state of the whole text."""
    model = random_model()
    for text in (Encoded("text", (0, 6, 7), 0, 3), Encoded("text", tuple(range(2, 20)), 0, 18)):
        got = last_prompt_states(Policy(model), collate([text, FORGET[0]], 1), [2])
        for i, ids in enumerate((text.ids, FORGET[0].ids[: FORGET[0].start])):
            own = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
            torch.testing.assert_close(got[i, 0], own[2][0, -1])


def test_at_least_float32_never_narrows() -> None:
    assert [
        at_least_float32(torch.zeros(1, dtype=t)).dtype for t in (torch.bfloat16, torch.float32, torch.float64)
    ] == [
        torch.float32,
        torch.float32,
        torch.float64,
    ]
