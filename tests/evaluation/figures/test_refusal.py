"""Which responses count as refusals."""

from __future__ import annotations

import pytest

from erulab.data.phrasings import REFUSALS
from erulab.evaluation.figures.refusal import is_refusal


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
