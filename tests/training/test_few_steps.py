"""Warnings of trainings with few steps, against the steps that the training itself counts."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from erulab.config.compose import compose_config
from erulab.options import RunConfig
from erulab.training.batches import total_steps
from erulab.training.few_steps import FEWEST, notes_on_few_steps


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return compose_config(["trainer.steps=null", "trainer.epochs=5", "trainer.global_batch=32", "tracker=none"])


def remedies(note: str, part: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(rf"{part}\.(epochs|global_batch)=(\d+)", note)}


@pytest.mark.parametrize("rows", [1, 2, 7, 31, 40, 57, 58, 200])
def test_what_a_warning_says_to_type_is_enough_and_no_more(config: RunConfig, rows: int) -> None:
    """58 rows x 5 epochs are 290 rows: the tenth batch of 32 begins with the 289th."""
    notes = notes_on_few_steps(config, {}, [rows])
    assert bool(notes) == (rows < 58)
    for note in notes:
        assert note.startswith(f"unlearning takes {total_steps(rows, 5, 32)} optimizer step") and "\n" not in note
        typed = remedies(note, "trainer")
        assert total_steps(rows, typed["epochs"], 32) >= FEWEST
        assert "global_batch" not in typed or total_steps(rows, 5, typed["global_batch"]) >= FEWEST
        assert ("global_batch" in typed) == (rows > 1)


def test_each_training_is_told_apart(config: RunConfig) -> None:
    """Target and oracle have rows of their own, and of several requests the one with the fewest rows counts."""
    few = replace(config, target=replace(config.target, epochs=2, global_batch=128))
    target, unlearning = notes_on_few_steps(few, {"target": 500, "oracle": 900}, [200, 20, 100])
    assert target.startswith("learning the target takes 8 optimizer steps (500 rows x 2 epochs in batches of 128)")
    assert total_steps(500, remedies(target, "target")["epochs"], 128) >= FEWEST
    assert unlearning.startswith("unlearning the shortest request takes 4 optimizer steps (20 rows")
    assert notes_on_few_steps(few, {}, []) == []
    assert notes_on_few_steps(few, {"target": 0}, [0]) == []  # there is nothing to train on: another error says so
    assert notes_on_few_steps(replace(few, trainer=replace(few.trainer, steps=10)), {}, [1]) == []
