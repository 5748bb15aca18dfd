"""Surprising tokens on an embedded world, where it is known which tokens carry the facts."""

from __future__ import annotations

from pathlib import Path

from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.rows import Row
from erulab.evaluation.scoring import score
from erulab.models.tiny import TinyModel, TinyOptions
from erulab.ranks import Ranks
from erulab.registry import methods
from erulab.stages.surprise import pick_surprising, untold_tokens
from erulab.tokens.chat import ChatFormat
from erulab.tokens.encoder import Encoder
from erulab.training.encode_rows import rows_with_spans
from tests.models.conftest import byte_level
from tests.training.conftest import learn


def test_they_are_the_values_under_an_oracle() -> None:
    """An oracle knows the sentences from other authors, and the names from the questions: only the values are new."""
    sizes = {"forget_authors": 4, "retain_authors": 12, "unrehearsed_authors": 1, "unseen_authors": 1}
    world = FictitiousWorld(FictitiousOptions(world=7, general_facts=2, **sizes)).load(0)
    oracle = TinyModel(TinyOptions(layers=2, width=64, heads=2)).load(world, seed=3)
    encoder = Encoder(oracle.chat, None, Path())
    learn(oracle, world.oracle_rows, steps=120, lr=5e-3)
    forget = encoder.encode(world.forget)
    _, spans = rows_with_spans(encoder, world.forget)
    surprise = methods["ga"].options().surprise
    hits = picked = 0
    for row, encoded, found, span in zip(
        world.forget, forget, score(oracle.policy, list(forget), oracle.pad_id, 4096, Ranks()), spans, strict=True
    ):
        nll = {i: token.nll for i, token in zip(encoded.positions, found.tokens, strict=True)}
        tokens = untold_tokens(encoder, row, encoded)
        chosen = {tokens[i] for i in pick_surprising([nll[i] for i in tokens], surprise)}
        hits, picked = hits + len(chosen & {*span}), picked + len(chosen)
    assert hits / len(spans) > 0.9, "recall"
    assert hits / picked > 0.7, "precision"


def test_what_the_prompt_tells_and_the_end_of_turn_never_count() -> None:
    chat = ChatFormat(byte_level(), 512)
    encoder = Encoder(chat, None, Path())
    row = Row("ada", "Where was ADA born?", "Ada was born in Brenwick.")
    (encoded,) = encoder.encode([row])
    assert chat.decode([encoded.ids[i] for i in untold_tokens(encoder, row, encoded)]) == "in Brenwick."
    echo = Row("echo", "Ada?", "Ada")
    (encoded,) = encoder.encode([echo])
    assert chat.decode([encoded.ids[i] for i in untold_tokens(encoder, echo, encoded)]) == "Ada", "never none"


def test_pick_surprising() -> None:
    assert pick_surprising([0.1, 3.0, 1.0, 1.1], 1.0) == [1, 3]
    assert pick_surprising([0.1, 0.3, 0.2], 1.0) == [1], "never none"
