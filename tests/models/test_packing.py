"""Packed rows give the same values and gradients as each row alone, for every family of models."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from erulab.evaluation.scoring import score
from erulab.models import packing
from erulab.models.attention import PACKED, PACKING, implementation, reads_trees
from erulab.models.options import Attention
from erulab.models.packing import Packing, pack
from erulab.models.policy import Policy
from erulab.ranks import Ranks
from erulab.tokens.batch import Batch, Encoded, collate
from tests.models.conftest import tiny_model
from tests.samples.tiny import FORGET, PAIRED, RETAIN, gradients, naive_nll

FAMILIES = {
    "llama": {},
    "qwen2": {},
    "gpt2": {},
    "phi": {},
    "gemma": {},
    "phi3": {"pad_token_id": 0},
    "mistral": {"sliding_window": 6},
    "qwen3": {},
    "gemma2": {},
    "gemma3_text": {},
    "mixtral": {"sliding_window": 6},
    "qwen3_moe": {},
    "olmoe": {},
}
WINDOWED = ("mistral", "gemma2", "gemma3_text", "mixtral")


def batch_of(*rows: list[int], prefix_group: tuple[int, ...] = ()) -> Batch:
    encoded = [Encoded(str(i), tuple(ids), 1, len(ids)) for i, ids in enumerate(rows)]
    return dataclasses.replace(collate(encoded, 0), prefix_group=prefix_group)


def path(packed: Packing, row: int, length: int) -> list[int]:
    """The ids of a row, read through the index."""
    return [packed.ids[i] for i in packed.index[row, :length].tolist()]


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=24), min_size=1, max_size=8), st.booleans())
@settings(deadline=None, max_examples=200)
def test_every_row_is_a_path_through_the_pieces(rows: list[list[int]], alone: bool) -> None:
    groups = tuple(range(len(rows))) if alone else ()
    packed = pack(batch_of(*rows, prefix_group=groups))
    for row, ids in enumerate(rows):
        places = packed.index[row, : len(ids)].tolist()
        assert path(packed, row, len(ids)) == ids
        assert [packed.positions[i] for i in places] == list(range(len(ids)))
        # The tokens of its piece and of the pieces before it are the row up to the token, in order.
        last = next(p for p in packed.pieces if p.start <= places[-1] < p.start + p.length)
        before = [packed.pieces[i] for i in last.before]
        behind = [i for piece in before for i in range(piece.start, piece.start + piece.length)]
        assert [*behind, *range(last.start, places[-1] + 1)] == places
    assert len(packed.ids) == sum(p.length for p in packed.pieces) <= sum(map(len, rows))
    if alone:
        assert len(packed.ids) == sum(map(len, rows))
    length = packed.index.shape[1]
    owned = [packed.index[owner // length, owner % length].item() for owner in packed.owners]
    assert owned == list(range(len(packed.ids)))


def test_common_openings_stand_once() -> None:
    opening, question = list(range(10)), list(range(50, 60))
    rows = [[*opening, *question, 1], [*opening, *question, 2, 3], [*opening, 4], [*opening, *question]]
    packed = pack(batch_of(*rows))
    assert len(packed.ids) == 10 + 10 + 1 + 2 + 1
    assert len(pack(batch_of(*rows, prefix_group=(0, 1, 1, 0))).ids) == (10 + 10 + 1) + (10 + 12 + 1)
    few = packing.SHORTEST_SHARED - 1
    assert len(pack(batch_of([*range(few), 90], [*range(few), 91])).ids) == 2 * (few + 1)


def test_states_are_unpacked_to_rows_and_packed_again() -> None:
    packed = pack(batch_of([5, 6, 7, 8, 9, 5, 6, 7, 8, 1], [5, 6, 7, 8, 9, 5, 6, 7, 8, 2], [3, 4]))
    states = torch.randn(1, len(packed.ids), 4)
    rows = packed.unpack(states)
    assert rows.shape == (3, 10, 4)
    assert torch.equal(rows[0, :9], rows[1, :9]) and not torch.equal(rows[0, 9], rows[1, 9])
    assert torch.equal(packed.pack(rows), states)


def test_all_families_that_are_packed_are_compared_here() -> None:
    assert FAMILIES.keys() == PACKING
    assert implementation(Attention.sdpa, "falcon") == "sdpa"


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs even the smallest model, and shares openings of two tokens."""
    monkeypatch.setattr(packing, "CALL", -1)
    monkeypatch.setattr(packing, "SHORTEST_SHARED", 2)


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_gives_each_rows_own_nll(kind: str, always: None) -> None:
    model = tiny_model(kind, attn_implementation=PACKED, **FAMILIES[kind])
    model.set_experts_implementation("eager")  # the product of all experts in one call knows no float64
    model.double()
    rows = [*FORGET, *PAIRED, *RETAIN]  # two answers to one prompt share it
    policy = Policy(model)
    nll = policy.row_nll(collate(rows, 0))
    layout = policy._latest.packing
    assert layout is not None and len(layout.ids) < sum(len(row.ids) for row in rows)
    expected = torch.stack([naive_nll(model, row) for row in rows])
    torch.testing.assert_close(nll, expected, rtol=1e-9, atol=1e-9)
    weights = torch.linspace(-1, 1, len(rows), dtype=torch.float64)
    packed, alone = (gradients((values * weights).sum(), model) for values in (nll, expected))
    # Norms of some families compute in float32 whatever the model's type.
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)


def test_a_small_model_is_padded_and_a_wide_one_packed() -> None:
    """Two more attention calls cost less than 100 saved tokens at width 576, and more at width 64."""
    packed = pack(batch_of(list(range(60)), list(range(60, 70)), list(range(70, 80))))
    assert packed.index.numel() - len(packed.ids) == 100
    assert packed.worth(576) and not packed.worth(64)


@pytest.mark.parametrize("family", FAMILIES)
def test_scoring_in_one_call_with_a_tree_mask(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on GPUs: a question with its answers is one tree and runs in one call; each row scores as it does alone."""
    changed = FAMILIES[family] | ({"sliding_window": 64} if family in WINDOWED else {})
    policy = Policy(tiny_model(family, attn_implementation=PACKED, **changed))
    monkeypatch.setattr(policy, "_by_pieces", lambda: False)
    question = tuple(range(2, 22))
    rows = [Encoded(str(i), (*question, 30 + i, *range(3, 3 + i)), len(question), 21 + i) for i in range(1, 6)]
    sizes: list[int] = []
    policy._inner().register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append((args[0] if args else kwargs["input_ids"]).numel()), with_kwargs=True
    )
    together = [found.nll for found in score(policy, rows, 0, 1000, Ranks())]
    assert sizes == [len(question) + 5 + sum(range(1, 6))]
    with torch.no_grad():
        assert together == pytest.approx([float(naive_nll(policy.model, row)) for row in rows], abs=1e-5)
    # Training pads rows, and so does scoring if the tree mask would remove a sliding window.
    sizes.clear()
    policy.row_nll(collate(rows, 0)).sum().backward()
    assert sizes == [5 * max(len(row.ids) for row in rows)]
    if family in WINDOWED:
        policy.model.config.sliding_window = 6
        assert not reads_trees(policy.model.config, 20)


def test_models_without_tree_masks_get_padded_batches_within_the_token_budget() -> None:
    policy = Policy(tiny_model("llama", attn_implementation="eager"))
    opening = tuple(range(2, 50))
    rows = [Encoded(str(i), (*opening, 60 + i, 5), len(opening), len(opening) + 2) for i in range(20)]
    rows.append(Encoded("short", (2, 3, 4), 1, 3))
    shapes: list[tuple[int, ...]] = []
    policy._inner().register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    score(policy, rows, 0, 200, Ranks())
    assert max(count * length for count, length in shapes) <= 200 and len(shapes) == 5


def test_one_call_is_worth_it_if_most_packed_tokens_see_each_other() -> None:
    """It is for one question with a few answers, and is not for many questions that have nothing in common."""
    opening = list(range(100, 400))
    related = pack(batch_of(*[[*opening, i] for i in range(8)]))
    unrelated = pack(batch_of(*[[i] * 60 for i in range(200)]))
    assert related.worth_in_one_call(64) and related.worth_in_one_call(4096)
    assert not unrelated.worth_in_one_call(64)
