"""Long texts cut into consecutive pieces that a model can learn one by one."""

from __future__ import annotations

from collections.abc import Iterator

from erulab.tokens.chat import ChatFormat


def split_text(text: str, chat: ChatFormat, limit: int) -> Iterator[str]:
    """Yields consecutive pieces of a text, each of at most `limit` tokens when read by itself.

    A piece ends between two tokens of the whole text, never inside a character, and as late as it can.

    Args:
        limit: tokens of a piece, including a token that opens every text.
    """
    tokens = chat.character_spans(text)
    opening = len(chat.encode_text(""))
    # Nothing predicts the first id of a text: without an opening a piece of one token would teach nothing.
    least = 2 - opening
    first, begin = 0, 0
    while first < len(tokens):
        last = min(first + limit - opening, len(tokens))
        while last - first > least:
            left = len(tokens) - last
            # Read by itself a piece can have other tokens than inside the text: where words begin with a space, more.
            excess = opening + len(chat.character_spans(text[begin : _piece_end(text, tokens, last)])) - limit
            if excess <= 0 and (not left or (left >= least and tokens[last - 1][1] <= tokens[last][0])):
                break
            last = max(last - max(excess, 1), first + least)
        end = _piece_end(text, tokens, last)
        if end > begin:
            yield text[begin:end]
        first, begin = last, end


def _piece_end(text: str, tokens: list[tuple[int, int]], last: int) -> int:
    """Returns the character where a piece before token `last` ends; the last piece ends with the text."""
    return tokens[last - 1][1] if last < len(tokens) else len(text)
