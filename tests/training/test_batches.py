"""Row order: a pure function of seed, epoch and position."""

from __future__ import annotations

from erulab.data.encoding import Encoded
from erulab.training.batches import micro_batches, stream, total_steps


def test_every_epoch_shows_every_row_once() -> None:
    rows = stream(5, "forget", 7, 0, 21)
    assert [sorted(rows[i : i + 7]) for i in (0, 7, 14)] == [list(range(7))] * 3
    assert rows[:7] != rows[7:14]


def test_position_alone_decides() -> None:
    """Cutting the stream into other batches, or starting in its middle, gives the same rows."""
    whole = stream(5, "forget", 10, 0, 40)
    for size in (1, 3, 8, 40):
        pieces = [stream(5, "forget", 10, start, min(size, 40 - start)) for start in range(0, 40, size)]
        assert [row for piece in pieces for row in piece] == whole
    assert stream(6, "forget", 10, 0, 40) != whole
    assert stream(5, "retain", 10, 0, 40) != whole


def encoded(lengths: list[int]) -> list[Encoded]:
    return [Encoded(str(i), tuple(range(n)), 1, n) for i, n in enumerate(lengths)]


def test_ranks_share_a_global_batch_evenly() -> None:
    rows = encoded([9, 3, 5, 8, 2, 7, 4, 6])
    batch = [3, 1, 0, 7, 5, 2, 6, 4]
    for world, micro in ((1, 8), (1, 2), (2, 4), (2, 2), (4, 1)):
        shares = [micro_batches(batch, rows, micro, rank, world) for rank in range(world)]
        assert len({len(share) for share in shares}) == 1
        assert sorted(i for share in shares for chunk in share for i in chunk) == sorted(batch)
        assert all(len(chunk) == micro for share in shares for chunk in share)


def test_like_lengths_go_together() -> None:
    rows = encoded([9, 3, 9, 3, 9, 3])
    chunks = micro_batches(range(6), rows, 3, 0, 1)
    assert [{len(rows[i].ids) for i in chunk} for chunk in chunks] == [{3}, {9}]


def test_steps_of_a_training() -> None:
    assert total_steps(100, 2, 32) == 7  # 200 rows in batches of 32
    assert total_steps(100, 2, 32, steps=5) == 5
    assert total_steps(3, 0.5, 32) == 1
