"""Every fault that a user may meet is shown by a test that names it."""

from __future__ import annotations

import pytest

from tests.pages.faults import FAULTS, faults_with_tests, marked_rows, missing


def test_every_fault_has_a_test() -> None:
    assert missing() == [], "name them in the docstrings of their tests, as FAULTS and the number"


def test_faults_are_numbered_without_a_gap() -> None:
    assert list(FAULTS) == list(range(1, len(FAULTS) + 1))


@pytest.mark.parametrize(
    ("docstring", "rows"),
    [
        (None, set()),
        ("Faults 3 and FAULTS without a number.", set()),
        ("FAULTS 3: a text of 5 words.", {3}),
        ("A text. FAULTS 3, 5 and 36.", {3, 5, 36}),
        ("FAULTS 1 to 4 and 9. FAULTS 12.", {1, 2, 3, 4, 9, 12}),
    ],
)
def test_marks(docstring: str | None, rows: set[int]) -> None:
    assert marked_rows(docstring) == rows


def test_a_mark_is_found_where_it_stands() -> None:
    assert any("attacks/weights/test_linear_layers.py" in test for test in faults_with_tests()[37])
