"""Alternatives of a model's own: its distribution over answers, given that they differ from the true one."""

from __future__ import annotations

import collections
import dataclasses

import pytest
import torch

from erulab.data.rows import Row
from erulab.errors import DataError
from erulab.evaluation.alternatives import generate_alternatives, leaving_log_probs
from erulab.methods.needs import Alternatives
from erulab.models.loaded import LoadedModel
from erulab.ranks import Ranks
from tests.training.conftest import learn, small_world, untrained_model

WANTED = Alternatives(3, 1.0, 12, "{prompt}")


def test_the_place_of_leaving_is_that_of_the_first_wrong_token() -> None:
    """Closed form for p = (.5, .8, .9): .5, .5 * .2 and .5 * .8 * .1, over their sum."""
    found = leaving_log_probs(torch.tensor([0.5, 0.8, 0.9], dtype=torch.float64).log()).exp()
    expected = torch.tensor([0.5, 0.1, 0.04], dtype=torch.float64)
    torch.testing.assert_close(found, expected / 0.64)


def test_an_answer_that_is_certain_leaves_anywhere_and_is_finite() -> None:
    assert leaving_log_probs(torch.zeros(4, dtype=torch.float64)).exp().tolist() == pytest.approx([0.25] * 4)


def alternatives(loaded: LoadedModel, rows: list[Row], seed: int = 0, **changes: object) -> dict[str, list[str]]:
    wanted = dataclasses.replace(WANTED, **changes)  # type: ignore[arg-type]
    return generate_alternatives(loaded, rows, wanted, seed, 2048, Ranks())


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(small_world().forget[:6])


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """A model that has learned the rows well."""
    world = small_world()
    model = untrained_model(world)
    learn(model, world.target_rows, steps=200)
    return model


def test_alternatives_are_wrong_different_and_reproducible(loaded: LoadedModel, rows: list[Row]) -> None:
    found = alternatives(loaded, rows)
    assert list(found) == [row.id for row in rows]
    for row in rows:
        texts = found[row.id]
        assert len(texts) == 3 and len(set(texts)) == 3
        assert all(row.value.lower() not in text.lower().split() and text.strip() for text in texts)
    assert alternatives(loaded, rows) == found
    # A row's draws do not depend on the rows beside it.
    assert alternatives(loaded, rows[2:3])[rows[2].id] == found[rows[2].id]
    assert alternatives(loaded, rows, seed=1) != found


def test_a_learned_target_keeps_the_frame_and_changes_the_value(loaded: LoadedModel, rows: list[Row]) -> None:
    """Most alternatives leave the answer at its value, where the model is least certain."""
    found = alternatives(loaded, rows)
    kept = [text.startswith(row.prefix.strip()) for row in rows for text in found[row.id]]
    assert sum(kept) >= len(kept) / 2


def test_texts_without_a_question_are_refused(loaded: LoadedModel, rows: list[Row]) -> None:
    with pytest.raises(DataError, match="is a text; .* method=npo"):
        alternatives(loaded, [dataclasses.replace(rows[0], prompt="", plain=True)])


def test_samples_follow_the_distribution_without_the_true_answer(loaded: LoadedModel, rows: list[Row]) -> None:
    """First tokens of many alternatives against p(first token | not the true answer), from the full logits."""
    row = dataclasses.replace(rows[0], value="", prefix="", accepted=())
    encoded = loaded.chat.encode(row)
    end = encoded.end - loaded.chat.closing(encoded)
    with torch.no_grad():
        logp = loaded.model(input_ids=torch.tensor([encoded.ids])).logits[0].double().div(4).log_softmax(-1)
    true = torch.stack([logp[t - 1, encoded.ids[t]] for t in range(encoded.start, end)])
    first = logp[encoded.start - 1].exp()
    same = encoded.ids[encoded.start]
    whole = true.sum().exp()
    # p(first) given another answer: the true answer's mass is taken from its own first token.
    first[same] -= whole
    expected = first / (1 - whole)
    draws = 400
    counts: collections.Counter[int] = collections.Counter()
    for seed in range(draws // 40):
        asked = [dataclasses.replace(row, id=f"{row.id}-{i}") for i in range(40)]
        for texts in alternatives(loaded, asked, seed=seed, count=1, temperature=4.0, max_new_tokens=40).values():
            counts[loaded.chat.encode(dataclasses.replace(row, response=texts[0])).ids[encoded.start]] += 1
    share = counts[same] / draws
    deviation = (expected[same] * (1 - expected[same]) / draws) ** 0.5
    assert share == pytest.approx(float(expected[same]), abs=4 * float(deviation))
