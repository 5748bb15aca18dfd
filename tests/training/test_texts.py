"""Running text, which has no prompt, is learned and unlearned by every method, reward and adversary."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from erulab.data.rows import Benchmark, Row
from erulab.errors import DataError
from erulab.methods.needs import Answer, Pairs
from erulab.models.loaded import LoadedModel
from erulab.registry import methods
from erulab.tokens.encoder import Encoder
from tests.cases import CASES, Case
from tests.training.conftest import Unlearning, options_of, small_model
from tests.training.test_contract import assert_close


def refuses(case: Case) -> bool:
    """Tells whether the case answers prompts by refusals; a text has no prompt."""
    method = methods.build(options_of(methods, case.method, case.method_options))
    refusal = method.needs.answer is Answer.refusal or method.needs.pairs is Pairs.refusal
    return refusal or any(term.paired for term in method.retain_terms)


REFUSING = [case for case in CASES if refuses(case)]
every_case = pytest.mark.parametrize("case", [case for case in CASES if not refuses(case)], ids=lambda case: case.name)


@pytest.fixture(scope="module")
def texts(world: Benchmark) -> Benchmark:
    """The small world's answers as texts; every second retain row stays a conversation."""

    def text(row: Row) -> Row:
        return dataclasses.replace(row, prompt="", plain=True)

    retain = tuple(text(row) if i % 2 else row for i, row in enumerate(world.retain))
    forget = tuple(map(text, world.forget))
    return dataclasses.replace(world, forget=forget, retain=retain, target_rows=forget + retain)


@pytest.fixture(scope="module")
def loaded(texts: Benchmark) -> LoadedModel:
    return small_model(texts)


def test_a_text_has_no_prompt_and_all_but_its_first_token_is_supervised(texts: Benchmark, loaded: LoadedModel) -> None:
    for row, encoded in zip(texts.forget, Encoder(loaded.chat, None, Path()).encode(texts.forget), strict=True):
        assert (encoded.start, encoded.end, encoded.tokens) == (0, len(encoded.ids), len(encoded.ids) - 1)
        assert loaded.tokenizer.decode(encoded.ids) == row.response


@pytest.mark.parametrize("case", REFUSING, ids=lambda case: case.name)
def test_a_text_cannot_be_refused(case: Case, texts: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a refusal answers a prompt, and row .* is a text without one"):
        Unlearning(case, texts, loaded, steps=1, global_batch=12, micro_batch=12).run(tmp_path)


@every_case
def test_texts_are_forgotten(case: Case, texts: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    """The forget loss falls, every metric is a number, and micro-batches of other sizes change nothing."""
    unlearning = Unlearning(case, texts, loaded, steps=6, global_batch=12, micro_batch=12)
    metrics, weights = unlearning.run(tmp_path)
    assert all(math.isfinite(value) for values in metrics for value in values.values())
    assert metrics[-1]["forget_loss"] < metrics[0]["forget_loss"]
    if case.adversary in ("noise", "latent_pgd"):
        assert metrics[0]["adversary/gain"] != 0
    parts, same = dataclasses.replace(unlearning, micro_batch=3).run(tmp_path)
    # The gradient of retain=kl is 0 at the start: Adam takes full steps along its rounding errors, and curves diverge.
    if case.method != "kl":
        assert_close(parts, metrics)
        assert all(torch.allclose(weights[name], same[name], atol=1e-4) for name in weights)
