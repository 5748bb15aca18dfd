"""Long texts in pieces: nothing lost, none too long, no character cut, for tokenizers of several kinds."""

from __future__ import annotations

import random

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from erulab.data.rows import Row
from erulab.models.tiny import tokenizer_of
from erulab.tokens.chat import ChatFormat
from erulab.tokens.pieces import split_text
from tests.models.conftest import byte_level, metaspace

WORDS = ("Ada", "was", "born", "in", "Brenwick,", "by", "the", "sea.", "\n\n", "naïve", "満月", "🌕", "  ", "x" * 30)


def text_of(seed: int, words: int = 120) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(words)) + rng.choice(("", "\n", " "))


def opened(text: str) -> PreTrainedTokenizerFast:
    """One token a word, and one that opens every text, as Llama's."""
    tokenizer = tokenizer_of([text])
    template = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = template
    return tokenizer


CHATS = {
    "bytes, no opening token": lambda text: ChatFormat(byte_level(), 512),
    "words begin with a space": lambda text: ChatFormat(metaspace(), 512),
    "an opening token": lambda text: ChatFormat(opened(text), 512),
}


@pytest.mark.parametrize("kind", CHATS)
@pytest.mark.parametrize("limit", [16, 33, 100])
def test_pieces_are_the_text_and_fit(kind: str, limit: int) -> None:
    for seed in range(5):
        text = text_of(seed)
        chat = CHATS[kind](text)
        found = list(split_text(text, chat, limit))
        assert "".join(found) == text
        lengths = [len(chat.encode(Row(str(i), "", piece, plain=True)).ids) for i, piece in enumerate(found)]
        assert min(lengths) >= 2 and max(lengths) <= limit
        # As few as can be, but for a word mark here and there and the bytes of a character that stay together.
        assert sum(lengths[:-1]) >= (limit - 5) * (len(lengths) - 1)


def test_pieces_hold_the_tokens_of_the_text_one_after_another() -> None:
    """Where a token does not depend on its neighbours: blocks of the limit less one, the opening token in front."""
    text = "Ada was born in Brenwick, by the sea. " * 5
    chat = ChatFormat(opened(text), 512)
    opening, *tokens = chat.encode(Row("whole", "", text, plain=True)).ids
    assert opening == 1  # <bos>
    for limit in (2, 7, 20):
        got = [chat.encode(Row("piece", "", piece, plain=True)).ids for piece in split_text(text, chat, limit)]
        blocks = [tokens[first : first + limit - 1] for first in range(0, len(tokens), limit - 1)]
        assert got == [(opening, *block) for block in blocks]


def test_without_an_opening_token_no_piece_is_left_with_a_single_one() -> None:
    chat = ChatFormat(byte_level(), 512)
    text = "abcdefg"
    assert len(chat.encode(Row("r", "", text, plain=True)).ids) == 7
    assert list(split_text(text, chat, 6)) == ["abcde", "fg"]
    assert list(split_text(text, chat, 5)) == ["abcde", "fg"]
