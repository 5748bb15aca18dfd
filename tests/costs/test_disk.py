"""Bytes of models and checkpoints, against a walk through what a run writes and removes."""

from __future__ import annotations

import pytest

from erulab.costs.disk import TrainingFiles, bytes_at_most, most_checkpoints


@pytest.mark.parametrize(("steps", "every", "there"), [(10, None, 0), (10, 10, 0), (10, 5, 1), (10, 3, 3), (99, 1, 3)])
def test_checkpoints_that_are_there_at_once(steps: int, every: int | None, there: int) -> None:
    saved: list[int] = []
    most = 0
    for done in range(1, steps):  # none after the last step; two are kept while a third is written
        if every is not None and done % every == 0:
            most = max(most, len(saved) + 1)
            saved = [*saved, done][-2:]
    assert most_checkpoints(steps, every, 2) == most == there


def test_checkpoints_go_when_the_model_is_written() -> None:
    first, second = TrainingFiles(4, 12, 3), TrainingFiles(4, 0, 0)
    assert bytes_at_most([first, second]) == 4 + 36, "the first training"
    assert bytes_at_most([second, first]) == 4 + 4 + 36, "beside the model that is there"
    assert bytes_at_most([second, second]) == 8
    assert bytes_at_most([]) == 0
