"""Row order: a pure function of seed, epoch and position."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from erulab.training.batches import Part, Split, micro_batches, rows_of_stream, total_steps


def test_every_epoch_shows_every_row_once() -> None:
    rows = rows_of_stream(5, "forget", 7, 0, 21)
    assert [sorted(rows[i : i + 7]) for i in (0, 7, 14)] == [list(range(7))] * 3
    assert rows[:7] != rows[7:14]


def test_rows_depend_on_the_position_alone() -> None:
    """Other batch sizes, or a start in the middle of the stream, give the same rows."""
    whole = rows_of_stream(5, "forget", 10, 0, 40)
    for size in (1, 3, 8, 40):
        pieces = [rows_of_stream(5, "forget", 10, start, min(size, 40 - start)) for start in range(0, 40, size)]
        assert [row for piece in pieces for row in piece] == whole
    assert rows_of_stream(6, "forget", 10, 0, 40) != whole
    assert rows_of_stream(5, "retain", 10, 0, 40) != whole


def part(lengths: list[int], answers: int = 1) -> Part:
    return Part(range(len(lengths)), lengths, answers)


def shared(parts: list[Part], split: Split, world: int) -> list[list[tuple[list[int], ...]]]:
    """Returns every rank's micro-batches; checks that each row is in exactly one, and that ranks have equally many."""
    shares = [micro_batches(parts, split, rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    for i, one in enumerate(parts):
        assert sorted(row for share in shares for micro in share for row in micro[i]) == sorted(one.rows)
    return shares


def test_ranks_share_a_global_batch_evenly() -> None:
    parts = [part([9, 3, 5, 8, 2, 7, 4, 6]), part([1, 2, 3, 4, 5, 6, 7, 8])]
    for world, micro in ((1, 8), (1, 2), (2, 4), (2, 2), (4, 1)):
        for share in shared(parts, Split(micro), world):
            assert all(len(rows) == micro for micros in share for rows in micros)
    assert [len(share) for share in shared(parts, Split(), 2)] == [1, 1]


def test_rows_of_equal_length_go_together() -> None:
    lengths = [9, 3, 9, 3, 9, 3]
    chunks = micro_batches([part(lengths)], Split(3), 0, 1)
    assert [{lengths[i] for i in chunk} for (chunk,) in chunks] == [{3}, {9}]


@given(
    st.lists(st.integers(2, 200), min_size=1, max_size=20),
    st.lists(st.integers(2, 200), min_size=1, max_size=20),
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from([30, 300, 1000, 10**6]),
)
def test_a_token_budget_is_kept(forget: list[int], retain: list[int], answers: int, world: int, budget: int) -> None:
    """No forward has more padded tokens than the budget, unless it has one row of each part; none is empty."""
    n = min(len(forget), len(retain))
    assume(n >= world)
    parts = [part(forget[:n], answers), part(retain[:n])]
    for share in shared(parts, Split(micro_tokens=budget), world):
        for f, r in share:
            assert f and r
            padded = max([forget[i] for i in f] + [retain[i] for i in r]) * (len(f) * answers + len(r))
            assert padded <= budget or len(share) == n // world


def test_a_token_budget_makes_no_more_micro_batches_than_it_needs() -> None:
    even = [part([10] * 8), part([10] * 8)]
    assert [len(micro_batches(even, Split(micro_tokens=b), 0, 1)) for b in (160, 80, 40, 20)] == [1, 2, 4, 8]
    assert micro_batches([part([5, 5]), Part([], [])], Split(micro_tokens=5), 0, 1) == [([0], []), ([1], [])]


def test_the_number_of_steps_of_a_training() -> None:
    assert total_steps(100, 2, 32) == 7  # 200 rows in batches of 32
    assert total_steps(100, 2, 32, steps=5) == 5
    assert total_steps(3, 0.5, 32) == 1
