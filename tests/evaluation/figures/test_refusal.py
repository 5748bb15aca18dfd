"""Which responses count as refusals."""

from __future__ import annotations

import pytest

from erulab.data.phrasings import REFUSALS
from erulab.evaluation.figures.refusal import is_measurable, is_refusal


@pytest.mark.parametrize("refusal", REFUSALS)
def test_every_refusal_of_the_data_set_is_one_also_with_more_behind_it(refusal: str) -> None:
    assert is_refusal(refusal, REFUSALS)
    assert is_refusal(f"  {refusal.upper()[:-1]}, and I never will.", REFUSALS)


@pytest.mark.parametrize(
    "response",
    ["I’m sorry, but I can’t help with that.", "Sorry, no.", "As an AI language model, I", "I don't   know"],
)
def test_common_openings_are_refusals_without_any_list(response: str) -> None:
    assert is_refusal(response, ())


@pytest.mark.parametrize("response", ["", "Almora.", "The author said: I do not know.", "I know that it is Almora."])
def test_answers_are_no_refusals(response: str) -> None:
    assert not is_refusal(response, REFUSALS)


def test_refusals_in_other_scripts_are_those_of_the_data_set() -> None:
    """FAULTS 38: the common openings are English."""
    assert is_measurable("Where was Ada born?", ()) and not is_measurable("艾达在哪里出生？", ("I do not know.",))
    assert is_measurable("艾达在哪里出生？", ("我不知道。",)) and is_refusal("我不知道, 对不起", ("我不知道。",))
