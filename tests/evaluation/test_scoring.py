"""Teacher-forced scores against a loop over full logits, for every combination of requests."""

from __future__ import annotations

import random

import pytest
import torch

from erulab.evaluation.scoring import score
from erulab.models.policy import Policy
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded
from tests.evaluation.conftest import on_ranks
from tests.samples import tiny

VALUE = 8  # where the value of QUESTION's response stands
QUESTION = tiny.encoded("question", 6, 6)


def candidates() -> list[Encoded]:
    """Five one-token values at one place, with what follows them; only the value is supervised."""
    ids = QUESTION.ids
    return [Encoded("q", (*ids[:VALUE], token, *ids[VALUE + 1 :]), VALUE, VALUE + 1) for token in (3, 9, 11, 20, 36)]


def long_candidates() -> list[Encoded]:
    """Values of one, two and three tokens, that share their first."""
    opening = QUESTION.ids[:VALUE]
    return [
        Encoded("q", (*opening, *value, 1), VALUE, VALUE + len(value)) for value in ((5,), (5, 6), (5, 6, 7), (8, 6))
    ]


ROWS = [
    *tiny.FORGET,
    *tiny.RETAIN,
    QUESTION,
    *candidates(),
    *long_candidates(),
    tiny.FORGET[0],
    Encoded("no prompt", (4, 5, 6), 0, 3),
    Encoded("inner", tiny.FORGET[2].ids, 3, 6),
]


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_scores_are_those_of_a_loop_over_full_logits(kind: str) -> None:
    model = tiny.random_model(kind)
    scores = score(Policy(model), ROWS, 1, 64, Ranks())
    with torch.no_grad():
        expected = [float(tiny.naive_nll(model, row)) for row in ROWS]
    assert [found.nll for found in scores] == pytest.approx(expected, abs=1e-9)
    assert [len(found.tokens) for found in scores] == [row.end - max(row.start, 1) for row in ROWS]


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_each_token_s_distribution_is_that_of_full_logits(kind: str) -> None:
    model = tiny.random_model(kind)
    asked = ROWS[:4]
    scores = score(Policy(model), ROWS, 1, 64, Ranks(), with_moments=asked)
    for row, found in zip(ROWS, scores, strict=True):
        with torch.no_grad():
            p = model(input_ids=torch.tensor([row.ids])).logits[0].double().softmax(-1)
        for token, position in zip(found.tokens, range(max(row.start, 1), row.end), strict=True):
            here = p[position - 1]
            assert token.greedy == (int(here.argmax()) == row.ids[position])
            assert token.nll == pytest.approx(-float(here[row.ids[position]].log()), abs=1e-9)
            if row in asked:
                mean = float((here * here.log()).sum())
                assert token.mean == pytest.approx(mean, abs=1e-9)
                variance = float((here * (here.log() - mean) ** 2).sum())
                assert token.deviation == pytest.approx(variance**0.5, abs=1e-9)


@pytest.mark.parametrize("batch_tokens", [1, 23, 10_000])
@pytest.mark.parametrize("pad_id", [1, 30])
def test_neither_order_nor_batches_nor_padding_matter(batch_tokens: int, pad_id: int) -> None:
    policy = Policy(tiny.random_model(dtype=torch.float32))
    alone = [score(policy, [row], 0, 1, Ranks())[0].nll for row in ROWS]
    order = random.Random(0).sample(range(len(ROWS)), len(ROWS))
    together = score(policy, [ROWS[i] for i in order], pad_id, batch_tokens, Ranks())
    assert [found.nll for found in together] == pytest.approx([alone[i] for i in order], abs=1e-5)


@pytest.mark.parametrize("head_positions", [1, 3])
def test_the_number_of_positions_whose_logits_exist_does_not_matter(head_positions: int) -> None:
    policy = Policy(tiny.random_model())
    rows = [*ROWS, QUESTION, *candidates()]
    whole = score(policy, rows, 1, 1000, Ranks(), ROWS)
    few = score(policy, rows, 1, 1000, Ranks(), ROWS, head_positions)
    for one, other in zip(whole, few, strict=True):
        assert [token.greedy for token in one.tokens] == [token.greedy for token in other.tokens]
        for name in ("nll", "mean", "deviation"):
            found = [getattr(token, name) for token in other.tokens]
            assert found == pytest.approx([getattr(token, name) for token in one.tokens], abs=1e-9)


def test_requests_share_a_forward_where_a_causal_model_lets_them() -> None:
    model = tiny.random_model()
    shapes: list[tuple[int, ...]] = []
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    score(Policy(model), [QUESTION, *candidates(), QUESTION], 1, 1000, Ranks())
    assert [rows for rows, _ in shapes] == [1]  # all five values are read from the response's own forward
    shapes.clear()
    score(Policy(model), long_candidates(), 1, 1000, Ranks())
    # (5,) and (5, 6) open (5, 6, 7); (8, 6) goes on from the common opening. Nothing after the last supervised token is
    # run but a mark.
    assert shapes == [(1, VALUE + 3 + 2)]


def test_two_ranks_score_what_one_does_in_the_same_order() -> None:
    model = tiny.random_model()
    one = score(Policy(model), ROWS, 1, 64, Ranks())
    for scores in on_ranks(2, lambda ranks: score(Policy(model), ROWS, 1, 64, ranks)):
        assert [found.nll for found in scores] == pytest.approx([found.nll for found in one], abs=1e-9)


def test_a_watch_is_told_of_every_batch_and_changes_nothing() -> None:
    policy = Policy(tiny.random_model(tiny.KINDS[0]))
    told: list[tuple[str, int, int]] = []
    watched = score(policy, ROWS, 1, 64, Ranks(), watch=lambda *one: told.append(one))
    assert watched == score(policy, ROWS, 1, 64, Ranks())
    counts = [done for _, done, _ in told]
    assert counts[0] == 0 and counts == sorted(counts) and len(told) == 3  # two batches
    assert {(what, total) for what, _, total in told} == {("sequences scored", counts[-1])}
