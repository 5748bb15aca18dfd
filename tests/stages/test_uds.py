"""The tokens whose probability UDS measures."""

from __future__ import annotations

import dataclasses

import pytest

from erulab.data.rows import Row
from erulab.stages.uds import encode_value
from tests.evaluation.conftest import random_speaker, small_world

WORLD = small_world()
CHAT = random_speaker(WORLD).chat
ROW = WORLD.forget[0]


def value_of(row: Row) -> str:
    encoded = encode_value(CHAT, row)
    assert encoded is not None and encoded.ids == CHAT.encode(row).ids[: encoded.positions[-1] + 1]
    return CHAT.decode([encoded.ids[i] for i in encoded.positions])


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({}, ROW.value),
        ({"spans": ()}, ROW.value),
        ({"spans": (ROW.author,)}, ROW.author),
        ({"spans": (), "prefix": "", "value": "", "candidates": ()}, ROW.response),
        ({"spans": ("elsewhere",)}, ROW.response),
    ],
)
def test_the_value_is_the_marked_words_otherwise_the_rows_value_otherwise_the_response(
    changes: dict[str, object], value: str
) -> None:
    assert ROW.author in ROW.response
    assert value_of(dataclasses.replace(ROW, **changes)).strip() == value  # type: ignore[arg-type]


def test_a_row_without_a_response_has_no_value() -> None:
    assert encode_value(CHAT, dataclasses.replace(ROW, response="", prefix="", value="", spans=())) is None
