"""Every accepted type answers in a batch as alone, has the layout that adversaries edit; others are refused in a line.

FAULTS 37: windows, states, experts, hybrids and models without a position limit.
"""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from erulab.errors import DataError
from erulab.evaluation.generation import SHARED, generate
from erulab.evaluation.prompt import Prompt
from erulab.models import loading
from erulab.models.key_value import PADDED
from erulab.models.loaded import LoadedModel
from erulab.models.loading import check_layout
from erulab.models.skipping import TUPLES
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded, collate
from tests.evaluation.test_generation import Numbers
from tests.models.families import ALONE, REFUSED, TOGETHER, made

ACCEPTED = {**TOGETHER, **ALONE}
OPENING = tuple(2 + 5 * i % 90 for i in range(SHARED))
TAILS = [(2, 3, 4), (9,), (5, 30, 7, 7, 12, 8, 21), tuple(range(50, 67))]
NEW = 6
# Where the two likeliest tokens are closer, rounding chooses between them.
MARGIN = 1e-4


class Ids(Numbers):
    """Numbers as texts, for a model that names no limit of positions."""

    def limit(self, max_length: int | None) -> int:
        return 10**9


class Vocabulary:
    def get_vocab(self) -> dict[str, int]:
        return {"a": 0, "b": 99}


def loaded_model(model: PreTrainedModel, stops: tuple[int, ...] = ()) -> LoadedModel:
    return LoadedModel(model, Vocabulary(), Ids(stops))  # type: ignore[arg-type]


def alone(model: PreTrainedModel, ids: tuple[int, ...]) -> tuple[list[int], float]:
    """Returns the greedy tokens of one prompt without padding or cache, and the smallest margin of a token."""
    found: list[int] = []
    margin = float("inf")
    for _ in range(NEW):
        logits = model(input_ids=torch.tensor([[*ids, *found]]), use_cache=False).logits[0, -1]
        best = logits.topk(2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        found.append(int(best.indices[0]))
    return found, margin


def test_every_type_that_is_padded_is_compared() -> None:
    assert TOGETHER.keys() == PADDED
    assert not PADDED & ALONE.keys()


@pytest.mark.parametrize("kind", ACCEPTED)
def test_answers_in_a_batch_are_those_of_one_prompt_at_a_time(kind: str) -> None:
    """FAULTS 37. Prompts of unlike lengths with a common opening; one row leaves the batch before the others."""
    model = made(kind, ACCEPTED[kind])
    asked = [(*opening, *tail) for opening in ((), OPENING) for tail in TAILS]
    with torch.no_grad():
        free = [alone(model, ids) for ids in asked]
    stop = free[-1][0][2]
    wanted = [tokens[: tokens.index(stop)] if stop in tokens else tokens for tokens, _ in free]
    sure = [i for i, (_, margin) in enumerate(free) if margin > MARGIN]
    assert len(sure) >= len(free) - 2
    for first in (0, len(TAILS)):
        prompts = [Prompt(ids, NEW) for ids in asked[first : first + len(TAILS)]]
        for batch_tokens in (1, 10_000):
            found = generate(loaded_model(model, (stop,)), prompts, batch_tokens, Ranks())
            for i in sure:
                if first <= i < first + len(TAILS):
                    assert found[i - first] == " ".join(map(str, wanted[i])), (asked[i], batch_tokens)


@pytest.mark.parametrize("kind", ACCEPTED)
def test_states_are_found_and_blocks_can_be_skipped(kind: str) -> None:
    """The layout passes the check, and head(norm(h_L)) are the model's logits, also without the last block."""
    model = made(kind, ACCEPTED[kind])
    loaded = loaded_model(model)
    check_layout(loaded, kind)
    ids = (10, 20, 30, 40, 50, 60)
    batch = collate([Encoded("row", ids, 1, len(ids))], 0)
    seen: list[torch.Tensor] = []
    hook = loaded.policy.norm.register_forward_pre_hook(lambda _, read: seen.append(read[0]))
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids).logits
        torch.testing.assert_close(loaded.policy.head(loaded.policy.norm(seen[0])), logits, atol=1e-4, rtol=1e-4)
        states = loaded.policy.run(batch, (1,), None).layers[1]
        seen.clear()
        loaded.policy.run(batch, (1,), 1)
    hook.remove()
    assert torch.equal(seen[0], states) and states.shape == (1, len(ids), 16)
    assert (kind in TUPLES) == isinstance(_first_output(model, loaded, batch.input_ids), tuple)


def _first_output(model: PreTrainedModel, loaded: LoadedModel, ids: torch.Tensor) -> object:
    found: list[object] = []
    hook = loaded.policy.blocks[0].register_forward_hook(lambda _, read, written: found.append(written))
    with torch.no_grad():
        model(input_ids=ids)
    hook.remove()
    return found[0]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", REFUSED)
def test_others_are_refused_in_one_line_when_they_are_read(
    kind: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 37. Their layout is unknown, or transformers generates with a cache what it does not without."""
    if large:  # no forward is tried
        monkeypatch.setattr(loading, "LAYOUT_CHECK_PARAMETERS", 0)
    with pytest.raises(DataError, match="layout|cache|cannot generate") as caught:
        check_layout(loaded_model(made(kind, REFUSED[kind])), kind)
    assert "\n" not in str(caught.value) and "erulab/models/README.md" in str(caught.value)
